// A chart: a still picture from the kernel, in whose place the kernel's live figure comes, or, in an
// exported page that has plotly.js, a figure that the page draws by itself.

import { make, openPage } from './page.js';

const CHART_CSS = `
.rx-chart{position:relative;margin:6px 0;transition:color 1ms}
.rx-chart img{display:block;width:100%;max-width:800px}
.rx-chart [hidden]{display:none}
`;

// Whether the host's page is dark: whether its text is light.
export function isDark(node) {
  const [r, g, b] = getComputedStyle(node).color.match(/[\d.]+/g).map(Number);
  return 0.3 * r + 0.6 * g + 0.1 * b > 128;
}

export const mount = (root, data) => openPage(root, data, chartIn);

function chartIn(page) {
  const image = page.root.querySelector('.rx-picture img') ?? make('img', { width: 800 });
  const live = make('div', { hidden: true });
  const chart = make('div', { className: 'rx-chart' }, image, live);
  const place = {};
  let rows = [], drawn = null, dark = null, width = 0;

  const nodes = [
    make('style', { textContent: CHART_CSS }), chart, page.sentence, page.details, page.caption,
  ];

  function update(data) {
    rows = data.rows;
    image.alt = data.sentence;
    if (data.picture) image.src = `data:image/svg+xml,${encodeURIComponent(data.picture)}`;
    if (data.chart && window.Plotly) drawAlone(data);
    go(data.place ?? {});
    page.say(data.sentence);
  }

  const go = change => Object.assign(place, change);

  // Puts a live figure in the picture's place, or the picture back.
  function show(figure) {
    live.replaceChildren(...(figure ? [figure] : []));
    live.hidden = !figure;
    image.hidden = !!figure;
    width = 0;
    requestAnimationFrame(fit);
  }

  // A live figure was drawn before it had a place, and looks at its room when the window changes.
  function fit() {
    if (live.hidden || width === live.clientWidth) return;
    width = live.clientWidth;
    window.dispatchEvent(new Event('resize'));
  }
  new ResizeObserver(fit).observe(live);

  function drawAlone({ chart: figure, templates, config }) {
    const { data, layout } = JSON.parse(figure), template = templates[+isDark(chart)];
    drawn ??= { figure: make('div'), templates };
    if (live.hidden) show(drawn.figure);
    window.Plotly.react(drawn.figure, data, { ...layout, template }, config);
  }

  function redraw() { // another theme
    if (dark === isDark(chart)) return;
    dark = isDark(chart);
    if (drawn) window.Plotly.relayout(drawn.figure, { template: drawn.templates[+dark] });
    self.themed?.(dark);
  }

  const self = { nodes, canvases: [chart], place, update, go, redraw, rows: () => rows, show, chart };
  return self;
}
