/**
 * A page's host for panels without Python: the six methods of the anywidget front-end module model, served
 * from the state that the page carries.
 *
 * `wb-panels` holds {modules: {name: source}, pools: {name: value}, spots: [{id, module, state}]}. In a state,
 * {"$bytes": base64} is a binary trait and {"$pool": name} a value that several panels share. Each module is
 * imported once, from a Blob: the page's policy allows no other place.
 */
(async () => {
  "use strict";
  const data = JSON.parse(document.getElementById("wb-panels").textContent);

  const bytes = (text) => {
    const raw = atob(text);
    const block = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i += 1) block[i] = raw.charCodeAt(i);
    return new DataView(block.buffer);
  };
  const revive = (value) => {
    if (value === null || typeof value !== "object") return value;
    if (typeof value.$bytes === "string") return bytes(value.$bytes);
    if (typeof value.$pool === "string") return pools[value.$pool];
    if (Array.isArray(value)) return value.map(revive);
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, revive(inner)]));
  };
  const pools = {};
  for (const [name, value] of Object.entries(data.pools)) pools[name] = revive(value);

  const modelOf = (state) => {
    const listeners = new Map();
    const of = (event) => listeners.get(event) ?? listeners.set(event, new Set()).get(event);
    return {
      get: (name) => state[name],
      set: (name, value) => {
        if (state[name] === value) return;
        state[name] = value;
        for (const event of [`change:${name}`, "change"]) for (const action of [...of(event)]) action();
      },
      save_changes: () => {},
      send: () => {},
      on: (event, action) => of(event).add(action),
      off: (event, action) => (action ? of(event).delete(action) : of(event).clear()),
    };
  };

  const modules = new Map();
  const load = (name) => {
    if (!modules.has(name)) {
      const url = URL.createObjectURL(new Blob([data.modules[name]], { type: "text/javascript" }));
      modules.set(name, import(url).then((module) => module.default));
    }
    return modules.get(name);
  };

  const models = new Map();
  for (const { id, module, state } of data.spots) {
    const el = document.getElementById(id);
    try {
      const widget = await load(module);
      const model = modelOf(revive(state));
      models.set(id, model);
      await widget.initialize?.({ model });
      await widget.render({ model, el });
      el.dataset.drawn = "true";
    } catch (error) {
      el.textContent = `This panel could not be drawn: ${error.message}`;
      console.error(error);
    }
  }

  /* A link "#feature-113" shows that feature in the first card. */
  const follow = () => {
    const [, feature] = /^#feature-(\d+)$/.exec(location.hash) ?? [];
    if (feature === undefined) return;
    for (const [id, model] of models) {
      if (!(model.get("offered") ?? []).includes(Number(feature))) continue;
      model.set("feature", Number(feature));
      document.getElementById(id).scrollIntoView({ block: "center" });
      return;
    }
  };
  window.addEventListener("hashchange", follow);
  follow();
  document.documentElement.dataset.panels = "done";
})();
