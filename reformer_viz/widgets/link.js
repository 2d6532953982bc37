// The kernel's side of an explorer's page, in a browser that has a kernel. The page was displayed as
// plain HTML and moves by itself; this finds it by its key, pushes new data into it, and puts the
// real controls, views of the kernel's widgets, into its slot, and a live chart where its picture is.

// Two notebooks in one JupyterLab window may hold the same key, a copy for one. Only the tab of a
// notebook says which file it shows.
function inNotebook(root, path) {
  const panel = root.closest('.jp-NotebookPanel');
  if (!path || !panel) return !root.closest('.jp-LinkedOutputView');
  const tab = [...document.querySelectorAll('.lm-TabBar-tab')].find(tab => tab.dataset.id === panel.id);
  const lines = (tab?.title ?? '').split('\n').filter(line => line.startsWith('Path:'));
  return !lines.length || lines.some(line => line.slice(5).trim() === path);
}

// Stock sliders have no accessible name, though they have a label; old ones have no value either.
function nameControl(node, control) {
  const name = node.querySelector('.widget-label')?.textContent;
  if (!name) return;
  for (const handle of node.querySelectorAll('[role=slider], .ui-slider-handle')) {
    handle.setAttribute('aria-label', name);
    if (handle.hasAttribute('aria-valuenow')) continue;
    const sayValue = () => handle.setAttribute('aria-valuenow', control.get('value'));
    handle.setAttribute('role', 'slider');
    sayValue();
    control.on('change:value', sayValue);
  }
  for (const readout of node.querySelectorAll('.widget-readout')) {
    readout.setAttribute('role', 'textbox');
    readout.setAttribute('aria-label', `${name}, typed`);
  }
}

async function modelOf(manager, id) {
  for (let tries = 0; tries < 400; tries++) {
    try {
      const model = await manager.get_model(id);
      if (model) return model;
    } catch { /* its comm has not arrived yet */ }
    await new Promise(done => setTimeout(done, 50));
  }
  throw new Error(`no widget ${id}`);
}

// What a host that lays out by Lumino tells a view: old charts draw themselves only then.
function tellAttached(view) {
  for (const type of ['before-attach', 'after-attach']) {
    try {
      (view.processLuminoMessage ?? view.processPhosphorMessage)?.call(view, { type });
    } catch { // a chart that answers to both names, in a host that knows but the older one
      view.processPhosphorMessage({ type });
    }
  }
}

export default {
  initialize({ model }) {
    const manager = model.widget_manager, key = model.get('key'), joined = new Map();
    const context = manager.context;
    let speaker; // the page whose reader moved, which must not be told so
    const here = () => (context?.localPath ?? context?.path ?? '').replace(/^[^/]*:/, '');

    // What takes longer to compute is asked for once the page has drawn the rest: while the reader
    // moves a control, only the last of his questions is still worth an answer.
    const update = page => {
      page.update(model.get('data'));
      page.arrive?.(model.get('late'));
      const { version } = model.get('data');
      if (version === undefined || version === model.get('wanted')) return;
      model.set('wanted', version);
      model.save_changes();
    };
    const join = async root => {
      const page = root.__rx;
      if (!page || root.dataset.link === 'on' || !inNotebook(root, here())) return;
      const views = [];
      joined.set(root, views);
      root.dataset.link = 'on';
      update(page);
      page.moved = place => {
        speaker = page;
        model.set('place', place);
        speaker = null;
        model.save_changes();
      };
      page.asked = question => {
        model.set('question', question);
        model.save_changes();
      };
      page.scene = number => {
        model.set('scene', number);
        model.save_changes();
      };
      const slot = root.querySelector('.rx-controls');
      slot.replaceChildren();
      for (const id of model.get('controls')) {
        const [view, control] = await viewOf(id, root, views, el => slot.append(el));
        if (!view) return;
        views.push(view);
        view.trigger('displayed');
        requestAnimationFrame(() => nameControl(view.el, control));
        control.once('destroy', leave);
        control.on('comm_live_update', () => control.comm_live || leave());
      }
      if (page.view.chart) await joinChart(page.view, root, views);
    };
    const viewOf = async (id, root, views, place) => {
      const control = await modelOf(manager, id), view = await manager.create_view(control);
      if (joined.get(root) !== views) { // left in the meantime
        view.remove();
        return [];
      }
      place(view.el); // plainly: Lumino's attach throws once JupyterLab drops the node
      return [view, control];
    };
    const joinChart = async (chart, root, views) => {
      chart.themed = dark => {
        model.set('dark', dark);
        model.save_changes();
      };
      chart.redraw();
      try {
        const [view] = await viewOf(await chartId(), root, views, chart.show);
        if (!view) return;
        tellAttached(view); // it stays when the kernel goes, with its hover and its zoom
        model.set('shown', true);
        model.save_changes();
      } catch (error) { // such as a host without Plotly's part of the browser: the picture stays
        console.warn('no live chart', error);
      }
    };
    // The kernel makes a chart when the first page asks for it: it is a large thing to send.
    const chartId = () => new Promise(done => {
      const answer = () => model.get('chart') && done(model.get('chart'));
      model.on('change:chart', answer);
      model.set('asked', true);
      model.save_changes();
      answer();
    });
    const scan = () => document.querySelectorAll(`[data-rx="${key}"]`).forEach(join);
    const pages = () => [...joined.keys()].map(root => root.__rx);
    const leave = () => {
      document.removeEventListener('rx:mounted', scan);
      for (const [root, views] of joined) {
        views.forEach(view => view.remove());
        root.dataset.link = 'off';
        root.__rx.moved = root.__rx.asked = null;
        root.__rx.alone();
      }
      joined.clear();
    };
    document.addEventListener('rx:mounted', scan);
    // While the kernel follows to a scene, the page shows it already.
    const settled = () => model.get('scene') === model.get('settled');
    const pushData = () => {
      scan();
      if (settled()) pages().forEach(update);
    };
    const pushPlace = () => {
      for (const page of settled() ? pages() : []) if (page !== speaker) page.go(model.get('place'));
    };
    model.on('change:data', pushData);
    model.on('change:place', pushPlace);
    model.on('change:late', () => pages().forEach(page => page.arrive?.(model.get('late'))));
    model.on('change:answer', () => pages().forEach(page => page.answer?.(model.get('answer'))));
    model.on('change:settled', () => { pushData(); pushPlace(); });
    scan();
    return leave;
  },
  render() {}, // where a link must be shown to live, there is nothing to see
};
