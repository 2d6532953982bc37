// What every explorer's page has: its sentence, its data table, the place of its controls, and tools
// to draw with. Needs no kernel and no network, so that a saved notebook still moves.

// Tools for one frame. `ink` is the host's own text colour and what is faint is faint ink, so that
// light and dark pages need no detection.
export function painter(canvas, width, height, { color: ink, fontFamily } = getComputedStyle(canvas)) {
  const ratio = window.devicePixelRatio || 1, pen = canvas.getContext('2d');
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.height = `${height}px`;
  pen.scale(ratio, ratio);
  const font = (size, family = fontFamily) => { pen.font = `${size}px ${family}`; };
  return {
    pen, ink,
    fits: (words, room, size = 11) => (font(size), pen.measureText(words).width <= room),
    // The words, or as many letters as fit before an ellipsis.
    short(words, room, size = 11, family = fontFamily) {
      font(size, family);
      const letters = [...words], fits = () => pen.measureText(words).width <= room;
      while (letters.length && !fits()) words = letters.pop() && letters.length ? `${letters.join('')}…` : '';
      return words;
    },
    text(words, x, y, { size = 11, align = 'center', alpha = 0.85, colour = ink, family, most, upright } = {}) {
      font(size, family);
      Object.assign(pen, { textAlign: align, textBaseline: 'middle', fillStyle: colour, globalAlpha: alpha });
      if (!upright) return pen.fillText(words, x, y, most); // more is condensed
      pen.save();
      pen.translate(x, y);
      pen.rotate(-Math.PI / 2);
      pen.fillText(words, 0, 0);
      pen.restore();
    },
    fill(x, y, w, h, colour, alpha = 1) {
      pen.fillStyle = colour; // one by one: of some pictures these are a hundred thousand
      pen.globalAlpha = alpha;
      pen.fillRect(x, y, w, h);
    },
    frame(x, y, w, h, colour, { alpha = 1, weight = 1, dash = [] } = {}) {
      Object.assign(pen, { strokeStyle: colour, globalAlpha: alpha, lineWidth: weight });
      pen.setLineDash(dash);
      pen.strokeRect(x + weight / 2, y + weight / 2, w - weight, h - weight);
      pen.setLineDash([]);
    },
  };
}

// ---- Parts -----------------------------------------------------------------------------------

const CSS = `
.rx-root{max-width:1100px;font:13px/1.45 system-ui,sans-serif;padding:4px 6px}
.rx-root canvas{display:block;width:100%;margin:6px 0;transition:color 1ms;touch-action:pan-y}
.rx-root canvas:focus-visible{outline:2px solid;outline-offset:3px}
.rx-root p{margin:4px 0;max-width:75em}
.rx-root button{font:inherit;padding:2px 10px}
.rx-say{min-height:2.9em}
.rx-controls{display:flex;flex-wrap:wrap;gap:0 12px;min-height:1.5em}
.rx-late{animation:rx-late 0s 2s both}
@keyframes rx-late{from{visibility:hidden}}
.rx-bar{display:flex;flex-wrap:wrap;gap:4px 22px;align-items:center}
.rx-bar label{display:flex;gap:8px;align-items:center}
.rx-bar output{min-width:3.6em}
.rx-bar input[type=range]{width:130px}
.rx-status{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.rx-note{opacity:.8}
.rx-code{user-select:all;overflow-wrap:anywhere}
.rx-code:empty{display:none}
.rx-scenes{display:flex;gap:12px;align-items:baseline;margin:4px 0}
.rx-scenes strong{font-size:1.35em;font-weight:600;flex:1}
.rx-root:fullscreen{background:var(--jp-layout-color1,Canvas);max-width:none;overflow:auto;padding:24px;font-size:17px}
.rx-table{max-height:260px;overflow:auto}
.rx-root table{border-collapse:collapse;font-variant-numeric:tabular-nums}
.rx-root td,.rx-root th{padding:1px 10px;text-align:right}
`;

export const make = (tag, properties = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
};

export const dial = (name, move) => {
  const output = make('output'), input = make('input', { type: 'range', min: 0, ariaLabel: name });
  input.oninput = () => move(+input.value);
  return { input, output, row: make('label', {}, name, input, output) };
};


// A table of rows, the first of which holds the columns' names.
export function tableOf([head, ...rows]) {
  const row = (tag, cells) => make('tr', {}, ...cells.map(textContent => make(tag, { textContent })));
  return make('table', {}, row('th', head), ...rows.map(cells => row('td', cells)));
}

// Another size or another theme: the host's text colour is in transition when its theme changes.
// JupyterLab restarts such a transition as its style sheets arrive, so that it is cancelled, not ended.
function watchLooks(canvases, redraw) {
  const recolour = () => requestAnimationFrame(redraw);
  for (const canvas of canvases) canvas.ontransitionend = canvas.ontransitioncancel = recolour;
  if (canvases.length) new ResizeObserver(redraw).observe(canvases[0]);
}

// A value as Python writes it, and as `literal` in call.py does.
export function python(value) {
  if (value === null || value === undefined) return 'None';
  if (Array.isArray(value)) return `[${value.map(python).join(', ')}]`;
  if (typeof value === 'object') {
    return `{${Object.entries(value).map(([name, x]) => `${python(name)}: ${python(x)}`).join(', ')}}`;
  }
  return typeof value === 'boolean' ? (value ? 'True' : 'False') : JSON.stringify(value);
}

export function codeOf({ name, values }, place) {
  const where = Object.keys(place).length ? `place=${python(place)}` : '';
  return `${name}(${[values, where].filter(Boolean).join(', ')})`;
}

// A button that puts a line of code on the clipboard, and shows it, since not every page may copy.
function copier(code) {
  const shown = make('code', { className: 'rx-code' });
  const onclick = () => {
    shown.textContent = code();
    navigator.clipboard?.writeText(code()).catch(() => {});
  };
  const button = make('button', { type: 'button', textContent: 'copy as code', onclick });
  return make('p', { className: 'rx-copy' }, button, ' ', shown);
}

const STEP = { ArrowRight: 1, PageDown: 1, ArrowLeft: -1, PageUp: -1 };

// The bar of a scene list: its caption, and the ways on and back. `show(number)` is told where to.
function sceneBar(scenes, root, show) {
  let at = 0;
  const caption = make('strong'), count = make('span');
  const button = (textContent, ariaLabel, onclick) =>
    make('button', { type: 'button', textContent, ariaLabel, onclick });
  const back = button('◀', 'previous scene', () => go(at - 1));
  const on = button('▶', 'next scene', () => go(at + 1));
  const large = button('full screen', 'full screen', () => root.requestFullscreen?.());
  const bar = make('div', { className: 'rx-scenes', role: 'group', ariaLabel: 'scenes' },
    back, count, on, caption, large);
  function label() {
    caption.textContent = scenes[at].caption;
    count.textContent = `${at + 1} of ${scenes.length}`;
    back.ariaDisabled = at === 0;
    on.ariaDisabled = at === scenes.length - 1;
  }
  function go(number) {
    if (number < 0 || number >= scenes.length) return;
    at = number;
    label();
    show(at);
  }
  // Arrow keys where nothing else wants them, and a clicker's keys anywhere.
  function press(event) {
    const mine = bar.contains(event.target) || event.target === document.body || event.target === root;
    if (!STEP[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    if (!mine && !event.key.startsWith('Page')) return;
    event.preventDefault();
    go(at + STEP[event.key]);
  }
  label();
  return { bar, press, words: () => `Scene ${at + 1} of ${scenes.length}: ${scenes[at].caption}. ` };
}

// ---- The page --------------------------------------------------------------------------------

// Put an explorer into `root`, which holds .rx-picture, .rx-controls and .rx-live. `build(page)` makes
// its view, which has `nodes` to show, `place`, `update(data)`, `go(change)`, `rows()` for the data
// table, perhaps `more()` for a second one, and where it draws `canvases` and `redraw()`. A view shows `page.sentence`, `page.details` (the
// table) and `page.caption` where it likes, and calls `page.say(words, place)` after every movement.
// Returns what the kernel's side needs: `update(data)`, `go(place)`, `alone()`, `arrive(late)` for
// numbers that come after the data that they belong to, `answer(found)` to what the view asked with
// `page.ask`, and hooks `moved` and `asked` for it to set.
export function openPage(root, data, build) {
  if (root.__rx) return root.__rx;
  const asks = data.asks ?? [];
  let timer, code, stands = {}; // where the reader stands

  const status = make('p', { className: 'rx-status', role: 'status' }), problem = make('p');
  const table = make('div', { className: 'rx-table', tabIndex: 0, role: 'region', ariaLabel: 'data table' });
  const summary = make('summary', { textContent: 'Data table' });
  const page = {
    root, say,
    sentence: make('p', { className: 'rx-say', ariaHidden: true }),
    details: make('details', { ontoggle: fillTable }, summary, table),
    caption: make('p', { className: 'rx-note' }),
    blocked: false, // by a problem, which stands in the view's place
    canAsk: () => !!self.asked, // whether a kernel may answer
    ask: question => self.asked?.(question),
  };
  const view = build(page), copy = copier(() => codeOf(code, stands));
  const shown = make('div', {}, ...view.nodes, copy);
  const scenes = data.scenes && sceneBar(data.scenes, root, showScene);
  const slot = root.querySelector('.rx-controls');
  root.querySelector('.rx-picture')?.remove();
  root.querySelector('.rx-live').replaceChildren(make('style', { textContent: CSS }), problem, shown, status);
  if (scenes) root.prepend(scenes.bar);

  function alone() { // without a kernel, or not yet with one
    if (!asks.length) return slot.replaceChildren();
    const textContent = `${asks.join(', ')}: the notebook changes these, once its cell has run`;
    slot.replaceChildren(make('p', { className: 'rx-note rx-late', textContent }));
  }

  function update(fresh) {
    problem.textContent = fresh.problem ?? '';
    page.blocked = shown.hidden = !!fresh.problem;
    if (fresh.problem) return announce(fresh.problem, view.place);
    page.caption.textContent = fresh.caption ?? '';
    code = fresh.code;
    view.update(fresh);
  }

  function say(words, place = view.place) {
    page.sentence.textContent = words;
    stands = { ...place };
    fillTable();
    announce(words, place);
  }

  function announce(words, place) { // to a screen reader and to the kernel, once the reader rests
    clearTimeout(timer);
    timer = setTimeout(() => {
      status.textContent = (scenes?.words() ?? '') + words;
      self.moved?.({ ...place });
    }, 400);
  }

  function fillTable() {
    if (page.details.open && !page.blocked) table.replaceChildren(...[view.rows(), view.more?.() ?? []].filter(rows => rows.length).map(tableOf));
  }

  function showScene(number) { // as it was stored; the kernel's controls follow, if there is one
    update(data.scenes[number].data);
    self.scene?.(number);
  }

  root.onkeydown = event => {
    scenes?.press(event);
    event.stopPropagation(); // the notebook has its own use for these keys
  };
  if (scenes) document.addEventListener('keydown', event => event.target === document.body && scenes.press(event));
  watchLooks(view.canvases ?? [], () => page.blocked || view.redraw());
  const go = change => { if (!page.blocked) view.go(change); };
  const arrive = late => { if (!page.blocked) view.arrive?.(late); };
  const answer = found => { if (!page.blocked) view.answer?.(found); };
  const self = (root.__rx = { update, go, alone, arrive, answer, place: view.place, view });
  alone();
  update(data);
  return self;
}
