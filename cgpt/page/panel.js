// The panel: everything known about one token, drawn from its own line of JSON. Text only ever enters as text nodes.
const constructiblePanel = (() => {
  "use strict";

  /** Element with attributes and children; strings become text nodes, so nothing in a record is read as HTML. */
  function h(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === false || value == null) continue;
      if (key === "style") for (const [name, v] of Object.entries(value)) element.style.setProperty(name, v);
      else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
      else element.setAttribute(key, value === true ? "" : value);
    }
    element.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
    return element;
  }

  const compact = (x) => Number(x.toPrecision(3)).toLocaleString("en");
  const percent = (p) => {
    if (p == null) return "–";
    const value = 100 * p;
    if (value === 0) return "0 %";
    if (value < 0.1) return "1 in " + compact(1 / p);
    return (value >= 99.95 && p < 1 ? "> 99.9" : value.toPrecision(value >= 10 ? 3 : 2)) + " %";
  };
  const number = (x, digits = 2) => (x == null ? "∞" : x.toFixed(digits));
  const colour = (expert) => (expert < 0 ? "var(--muted)" : `var(--expert-${expert % 8})`);

  /** Text with its invisible characters drawn. */
  function visible(text) {
    if (text === "") return [h("span", { class: "ws" }, "end of file")];
    return text.split(/(\r?\n|\r|\t| )/).filter((part) => part !== "").map((part) => {
      if (/\n|\r/.test(part)) return [h("span", { class: "ws" }, "↵"), text.length > 1 ? "\n" : ""];
      if (part === "\t") return h("span", { class: "ws" }, "→ ");
      if (part === " ") return h("span", { class: "ws" }, "·");
      return part;
    });
  }
  const inline = (text) =>
    text === "" ? "end of file" : text.replace(/\r?\n|\r/g, "↵").replace(/\t/g, "→").replace(/ /g, "·");

  function section(title, ...children) {
    return h("section", {}, h("h3", {}, title), children);
  }

  function concept(data, index) {
    const { path, question } = data.concepts[index];
    const parents = path.slice(0, -1);
    return section("Concept in charge",
      h("p", { class: "v-path" }, parents.map((name) => h("span", { class: "muted" }, name + " › ")), path.at(-1)),
      question ? h("p", { class: "v-question" }, question) : null);
  }

  function router(data, detail) {
    const taken = new Set(detail.lines || []);
    if (!data.router.length || !taken.size) return null;
    const box = h("div", { class: "v-router", tabindex: "0", role: "region", "aria-label": "Router source, lines taken marked" });
    const line = (i) => h("div", { "data-n": i + 1, class: taken.has(i + 1) ? "taken" : null },
      data.router[i].map(([kind, text]) => (kind ? h("span", { class: "py-" + kind }, text) : text)));
    function draw(whole) {
      box.replaceChildren();
      let previous = -1;
      for (let i = 0; i < data.router.length; i++) {
        if (!whole && !taken.has(i + 1)) continue;
        if (!whole && i > previous + 1) box.append(h("div", { class: "gap" }, "⋯"));
        box.append(line(i));
        previous = i;
      }
      const last = box.querySelectorAll(".taken");
      if (whole && last.length) box.scrollTop = last[last.length - 1].offsetTop - box.clientHeight / 2;
    }
    let whole = false;
    const more = h("button", { type: "button", class: "v-more", "aria-expanded": "false", onclick: () => {
      whole = !whole;
      draw(whole);
      more.textContent = whole ? "Only the lines taken" : `All ${data.router.length} lines of the router`;
      more.setAttribute("aria-expanded", String(whole));
    } }, `All ${data.router.length} lines of the router`);
    draw(false);
    const { asked } = stateFields(data, detail);
    return section("Why this concept: router lines taken", box,
      asked.length ? h("ul", { class: "v-asked", "aria-label": "State that these lines asked for" },
        asked.map(([name, value]) => h("li", {}, h("span", { class: "muted" }, name + " = "), h("code", {}, inline(String(value)))))) : null,
      more);
  }

  function evidence(item, key) {
    const source = [item.file ? item.file + (item.line ? ":" + item.line : "") : null, item.licence].filter(Boolean);
    const value = item.value == null ? "" : item.kind === "count" ? "× " + compact(item.value) : compact(item.value);
    return h("li", { style: { "--key": key } },
      h("div", { class: "what" },
        h("span", {}, h("span", { class: "v-kind" }, item.kind), h("code", {}, item.text)),
        h("span", { class: "value" }, value)),
      source.length ? h("div", { class: "where" }, source.join(" · ")) : null);
  }

  function experts(data, detail) {
    const list = [...(detail.experts || [])].sort((a, b) => (b.share || 0) - (a.share || 0));
    if (!list.length) return null;
    const key = (name) => colour(data.experts.indexOf(name));
    const described = list.map((e) => `${e.name} ${percent(e.share)}`).join(", ");
    const stack = h("div", { class: "v-stack", role: "img", "aria-label": "Shares: " + described },
      list.map((e) => h("i", { style: { width: 100 * (e.share || 0) + "%", "--key": key(e.name) }, title: `${e.name} ${percent(e.share)}` })));
    const speaking = list.filter((e) => (e.evidence || []).length);
    const rows = list.map((e) => {
      const lines = e.evidence || [];
      const row = h("details", { class: "v-expert" + (lines.length ? "" : " bare"), open: e === speaking[0] || (lines.length > 0 && e.share > 0.2), style: { "--key": key(e.name) } },
        h("summary", {},
          h("span", { class: "name" }, e.name), h("span", { class: "share" }, percent(e.share)),
          h("span", { class: "v-bar" }, h("i", { style: { width: 100 * (e.share || 0) + "%" } })),
          h("span", { class: "how" }, `weight ${number(e.weight)} × its probability ${percent(e.probability)}`)),
        lines.length ? h("ul", { class: "v-evidence" }, lines.map((item) => evidence(item, key(e.name)))) : null);
      return row;
    });
    return section("Who said so: each expert's share", stack, rows);
  }

  function alternatives(detail, token) {
    const top = detail.top || [];
    if (!top.length) return null;
    const largest = Math.max(...top.map((t) => t.probability || 0), 1e-9);
    const row = ({ text, probability }, kind) => h("li", { class: kind },
      h("code", { title: inline(text) }, inline(text)),
      h("span", { class: "v-bar" }, h("i", { style: { width: 100 * Math.min(1, (probability || 0) / largest) + "%" } })),
      h("span", { class: "value" }, percent(probability)));
    const rows = top.map((t) => row(t, t.text === token.text ? "actual" : null));
    if (!top.some((t) => t.text === token.text)) {
      rows.push(row({ text: token.text, probability: token.bits == null ? 0 : 2 ** -token.bits }, "actual beyond"));
    }
    return section("What it expected", h("ol", { class: "v-top" }, rows));
  }

  /** State fields, those named in the router lines taken apart from the rest. */
  function stateFields(data, detail) {
    const named = new Set();
    for (const line of detail.lines || []) {
      const text = (data.router[line - 1] || []).map(([, part]) => part).join("");
      for (const match of text.matchAll(/\bstate\.(\w+)/g)) named.add(match[1]);
    }
    const entries = Object.entries(data.states[detail.state] || {});
    return { asked: entries.filter(([name]) => named.has(name)), rest: entries.filter(([name]) => !named.has(name)) };
  }

  const list = (entries) => h("dl", { class: "v-facts" }, entries.map(([name, value]) => [
    h("dt", {}, name), h("dd", {}, h("code", {}, inline(String(value))))]));

  function facts(data, detail) {
    const { asked, rest } = stateFields(data, detail);
    const reads = Object.entries(detail.reads || {});
    const bucket = Object.entries(detail.bucket || {}).map(([name, value]) => [name.replaceAll("_", " "), value]);
    return [
      reads.length ? section("What was read", list(reads)) : null,
      bucket.length ? section("Longest match", list(bucket)) : null,
      rest.length ? section("State", h("details", {},
        h("summary", { class: "v-more" }, asked.length ? `${rest.length} fields the lines above do not name` : `${rest.length} fields`), list(rest))) : null,
    ];
  }

  /** Children of the panel for one token. */
  function draw(data, detail, token, controls) {
    const place = `line ${token.line}, column ${token.column} · bytes ${token.start}–${token.end}`;
    return [
      h("div", { class: "v-head" },
        h("div", { class: "v-token" }, visible(token.text)), controls,
        h("p", { class: "v-figures" }, h("b", {}, `${number(token.bits)} bits`), ` · probability ${percent(token.bits == null ? 0 : 2 ** -token.bits)}`,
          h("br"), place)),
      concept(data, token.concept), router(data, detail), experts(data, detail), alternatives(detail, token),
      facts(data, detail),
    ].flat(Infinity).filter(Boolean);
  }

  return { h, draw, percent, number, inline, colour };
})();
