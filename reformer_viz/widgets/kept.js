// A picture of which a part is kept: what a pointer or a key does not change is painted once.

import { make, painter } from './page.js';

// Tools for one frame that begins with what `paint` paints: it is kept while its key, the size and the
// host's looks stay the same, and painted anew only then.
export function painterOn(canvas, width, height, key, paint) {
  const looks = getComputedStyle(canvas), tools = painter(canvas, width, height, looks), { pen } = tools;
  const whole = [key, canvas.width, canvas.height, looks.color, looks.fontFamily].join();
  if (canvas.__kept?.whole !== whole) {
    const copy = make('canvas');
    paint(painter(copy, width, height, looks));
    canvas.__kept = { whole, copy };
  }
  pen.save();
  pen.resetTransform();
  pen.drawImage(canvas.__kept.copy, 0, 0);
  pen.restore();
  return tools;
}
