// Bucket numbers as letters, so many each: what letters.py writes, read.

const DIGITS = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_';

export function numbersOf(letters, digits) {
  const numbers = Array(letters.length / digits).fill(0);
  for (let at = 0; at < letters.length; at++) {
    const k = Math.floor(at / digits);
    numbers[k] = numbers[k] * 64 + DIGITS.indexOf(letters[at]);
  }
  return numbers;
}

// What was shipped, with every round's buckets as numbers.
export const opened = data => ({ ...data, buckets: data.buckets.map(row => numbersOf(row, data.digits)) });
