// The viewer: one element per token and one listener for all of them; details are parsed when a token is chosen.
(() => {
  "use strict";
  const { h, draw, number, percent, inline, colour } = constructiblePanel;
  const EDGES = [0.25, 0.75, 1.5, 3, 5, 8, 12]; // bits at which the shade deepens
  const LABELS = ["0", "¼", "¾", "1½", "3", "5", "8", "12+"];
  const shade = (bits) => (bits == null ? EDGES.length : EDGES.filter((edge) => bits >= edge).length);

  function mount(root) {
    const of = (name) => document.querySelector(`script.viewer-${name}[data-for="${root.id}"]`);
    const data = JSON.parse(of("overview").textContent);
    let details = null;
    const detail = (i) => JSON.parse((details ??= of("details").textContent.split("\n"))[i]);
    const n = data.shown.length;
    const spans = new Array(n); // per token its first element; a token over a line break has more, found by data-i
    const places = new Array(n);
    const state = { token: -1, filter: -1, mode: "bits", rank: -1 };
    const narrow = matchMedia("(max-width: 820px)");

    const counts = data.concepts.map(() => ({ tokens: 0, bits: 0 }));
    data.concept.forEach((c, i) => { counts[c].tokens++; counts[c].bits += data.bits[i] ?? 0; });
    const used = counts.map((c, i) => [c.tokens, i]).filter(([tokens]) => tokens).sort((a, b) => b[0] - a[0]);
    // Hues by the golden angle, most frequent concepts first, so that those seen most are the furthest apart.
    const hue = [];
    used.forEach(([, i], rank) => { hue[i] = Math.round((250 + 137.508 * rank) % 360); });
    const conceptColour = (i) => `oklch(var(--concept-l) var(--concept-c) ${hue[i]})`;

    const code = h("div", {
      class: "v-code by-bits", role: "listbox", tabindex: "0", "aria-orientation": "horizontal",
      "aria-label": `Tokens of ${data.file}. Arrow keys move, Enter opens the explanation, s jumps to the most surprising.`,
    });
    const panel = h("aside", { class: "v-panel", tabindex: "-1", "aria-label": "Explanation of the chosen token" });
    const said = h("div", { class: "visually-hidden", role: "status", "aria-live": "polite" });

    function drawCode() {
      const fragment = document.createDocumentFragment();
      let number_ = 0, column = 1, line;
      const newLine = () => {
        line = document.createElement("div");
        line.className = "ln";
        line.setAttribute("role", "presentation");
        line.dataset.n = ++number_;
        column = 1;
        fragment.append(line);
      };
      newLine();
      for (let i = 0; i < n; i++) {
        const text = data.shown[i];
        places[i] = [number_, column];
        const parts = text.split(/\r\n|\n|\r/);
        for (let k = 0; k < parts.length; k++) {
          if (k > 0) newLine();
          const breaks = k < parts.length - 1;
          if (!breaks && parts[k] === "" && k > 0) continue;
          const span = document.createElement("span");
          span.className = "b" + shade(data.bits[i]) + (breaks ? " nl" : "") + (text === "" ? " end" : "");
          span.dataset.i = i;
          span.textContent = parts[k];
          if (k === 0) {
            spans[i] = span;
            span.setAttribute("role", "option");
            span.id = `${root.id}-t${i}`;
            if (!text.trim()) span.setAttribute("aria-label", inline(text));
          } else span.setAttribute("role", "presentation");
          line.append(span);
          column += parts[k].length;
        }
      }
      code.append(fragment);
    }
    const elements = (i) => code.querySelectorAll(`span[data-i="${i}"]`);

    // Tools
    const modes = [["bits", "Surprise"], ["concept", "Concept"], ["expert", "Expert"]].map(([mode, label]) =>
      h("button", { type: "button", role: "radio", "data-mode": mode, "aria-checked": String(mode === "bits"), tabindex: mode === "bits" ? "0" : "-1", onclick: () => setMode(mode) }, label));
    const modeGroup = h("div", { class: "v-modes", role: "radiogroup", "aria-label": "Colour tokens by" }, modes);
    modeGroup.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const next = modes[(modes.findIndex((b) => b.dataset.mode === state.mode) + step + modes.length) % modes.length];
      setMode(next.dataset.mode);
      next.focus();
    });
    const filter = h("select", { class: "v-filter", "aria-label": "Show one concept", onchange: () => setFilter(Number(filter.value)) },
      h("option", { value: "-1" }, `All concepts (${n.toLocaleString("en")} tokens)`),
      used.map(([tokens, i]) => h("option", { value: i }, `${data.concepts[i].name} · ${tokens} · ${number(counts[i].bits / tokens, 1)} bits each`)));
    const surprise = h("button", { type: "button", class: "button v-surprise", onclick: () => nextSurprise() }, "Most surprising token");
    const legend = h("div", { class: "v-legend" });

    function setMode(mode) {
      state.mode = mode;
      for (const button of modes) {
        button.setAttribute("aria-checked", String(button.dataset.mode === mode));
        button.tabIndex = button.dataset.mode === mode ? 0 : -1;
      }
      code.classList.toggle("by-bits", mode === "bits");
      // One style rule per concept or expert in use would be shorter, but a variable per token repaints as fast.
      const tint = { concept: (i) => conceptColour(data.concept[i]), expert: (i) => `color-mix(in oklab, ${colour(data.leader[i])} 30%, var(--card))` }[mode];
      for (const span of code.querySelectorAll("span[data-i]")) {
        if (tint) span.style.setProperty("--shade", tint(Number(span.dataset.i)));
        else span.style.removeProperty("--shade");
      }
      drawLegend();
    }

    function drawLegend() {
      if (state.mode === "bits") {
        legend.replaceChildren("bits to say the token",
          h("span", { class: "v-scale", role: "img", "aria-label": "From 0 bits, pale, to 12 bits and more, deep orange" },
            LABELS.map((label, i) => h("i", { style: { background: `var(--bits-${i})` } }, label))),
          h("span", {}, "0 = certain; each bit halves the probability"));
      } else if (state.mode === "concept") {
        const shown = used.slice(0, narrow.matches ? 5 : 9);
        legend.replaceChildren(...shown.map(([, i]) =>
          h("button", { type: "button", class: "v-key", style: { "--key": conceptColour(i) }, onclick: () => setFilter(state.filter === i ? -1 : i) }, data.concepts[i].name)),
          used.length > shown.length ? h("span", {}, `and ${used.length - shown.length} more in the list above`) : "");
      } else {
        legend.replaceChildren("largest share:", ...data.experts.map((name, i) => h("span", { class: "v-key", style: { "--key": colour(i) } }, name)));
      }
    }

    function setFilter(concept) {
      state.filter = concept;
      state.rank = -1;
      filter.value = String(concept);
      code.classList.toggle("filtered", concept >= 0);
      for (const span of code.querySelectorAll("span[data-i]")) {
        span.classList.toggle("hit", concept >= 0 && data.concept[Number(span.dataset.i)] === concept);
      }
      surprise.textContent = "Most surprising token";
      if (concept >= 0) {
        said.textContent = `${counts[concept].tokens} tokens of ${data.concepts[concept].name}`;
        const first = data.concept.indexOf(concept);
        if (!matches(state.token) && first >= 0) reveal(spans[first], "center");
      }
    }

    const matches = (i) => state.filter < 0 || data.concept[i] === state.filter;
    let ranking = null, rankedFor = -2;
    function nextSurprise() {
      if (rankedFor !== state.filter) {
        ranking = [...data.bits.keys()].filter(matches).sort((a, b) => (data.bits[b] ?? Infinity) - (data.bits[a] ?? Infinity));
        rankedFor = state.filter;
      }
      if (!ranking.length) return;
      state.rank = (state.rank + 1) % ranking.length;
      choose(ranking[state.rank], { scroll: "center" });
      surprise.textContent = `Next most surprising (${state.rank + 1} of ${ranking.length.toLocaleString("en")})`;
    }

    function choose(i, { scroll = "nearest", open = true, remember = true } = {}) {
      if (i < 0 || i >= n) return;
      for (const span of elements(state.token)) {
        span.classList.remove("on");
        span.removeAttribute("aria-selected");
        span.parentElement.classList.remove("here");
      }
      state.token = i;
      for (const span of elements(i)) {
        span.classList.add("on");
        span.parentElement.classList.add("here");
      }
      spans[i].setAttribute("aria-selected", "true");
      code.setAttribute("aria-activedescendant", spans[i].id);
      const token = {
        text: data.shown[i], bits: data.bits[i], concept: data.concept[i], start: data.start[i], end: data.end[i],
        line: places[i][0], column: places[i][1],
      };
      const step = (label, text, move, extra = "") => h("button", { type: "button", class: extra, "aria-label": label, title: label, onclick: move }, text);
      panel.replaceChildren(...draw(data, detail(i), token, h("div", { class: "v-steps" },
        step("Previous token", "←", () => choose(along(-1))), step("Next token", "→", () => choose(along(1))),
        step("Close", "✕", close, "v-close"))));
      panel.scrollTop = 0;
      if (open) { panel.classList.add("open"); root.classList.add("sheet-open"); }
      if (scroll) reveal(spans[i], scroll);
      said.textContent = `${inline(token.text)}: ${number(token.bits)} bits, probability ${percent(token.bits == null ? 0 : 2 ** -token.bits)}, ${data.concepts[token.concept].name}`;
      if (remember) try { history.replaceState(null, "", `#${root.id}-t${i}`); } catch { /* some browsers refuse on files */ }
    }

    /** Bring a token into view: inside the code's own scroll area first, on a phone above the sheet too. */
    function reveal(span, block) {
      if (narrow.matches) { span.scrollIntoView({ block: block === "center" ? "center" : "nearest" }); return; }
      const box = code.getBoundingClientRect(), at = span.getBoundingClientRect(), margin = 3 * at.height;
      if (block === "center") code.scrollTop += at.top - box.top - box.height / 2;
      else if (at.top < box.top + margin) code.scrollTop += at.top - box.top - margin;
      else if (at.bottom > box.bottom - margin) code.scrollTop += at.bottom - box.bottom + margin;
    }

    function close() {
      panel.classList.remove("open");
      root.classList.remove("sheet-open");
      code.focus({ preventScroll: true });
    }

    function along(step) {
      let i = state.token + step;
      while (i >= 0 && i < n && !matches(i)) i += step;
      return i < 0 || i >= n ? state.token : i;
    }

    function vertical(step) {
      const from = spans[state.token].getBoundingClientRect();
      let line = spans[state.token].parentElement;
      do line = step > 0 ? line.nextElementSibling : line.previousElementSibling; while (line && !line.querySelector("[data-i]"));
      if (!line) return state.token;
      let best = null, distance = Infinity;
      for (const span of line.querySelectorAll("[data-i]")) {
        const away = Math.abs(span.getBoundingClientRect().left - from.left);
        if (away < distance) [best, distance] = [span, away];
      }
      return Number(best.dataset.i);
    }

    code.addEventListener("click", (event) => {
      const span = event.target.closest("[data-i]");
      // A drag that selected text is not a choice.
      if (span && !String(getSelection())) choose(Number(span.dataset.i));
    });
    code.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const moves = {
        ArrowRight: () => along(1), ArrowLeft: () => along(-1), ArrowDown: () => vertical(1), ArrowUp: () => vertical(-1),
        Home: () => 0, End: () => n - 1,
      };
      if (moves[event.key]) {
        event.preventDefault();
        choose(state.token < 0 ? 0 : moves[event.key]());
      } else if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        choose(Math.max(0, state.token));
        panel.focus({ preventScroll: true });
      } else if (event.key === "s") nextSurprise();
    });
    root.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && panel.contains(document.activeElement)) close();
      else if (event.key === "Escape" && panel.classList.contains("open")) close();
    });

    panel.append(h("div", { class: "v-empty" },
      h("p", {}, "Choose a token to see which concept was in charge, the router lines that put it there, what each expert said, and where it had seen it."),
      h("dl", {}, h("dt", {}, h("kbd", {}, "← →")), h("dd", {}, "next token"), h("dt", {}, h("kbd", {}, "↑ ↓")), h("dd", {}, "next line"),
        h("dt", {}, h("kbd", {}, "Enter")), h("dd", {}, "into this panel"), h("dt", {}, h("kbd", {}, "s")), h("dd", {}, "most surprising"))));
    root.replaceChildren(
      h("div", { class: "v-tools", role: "group", "aria-label": "View" }, modeGroup, filter, surprise),
      legend, h("div", { class: "v-body" }, code, panel), said);
    drawCode();
    drawLegend();

    const asked = location.hash.startsWith(`#${root.id}-t`) ? Number(location.hash.slice(root.id.length + 3)) : -1;
    if (asked >= 0 && asked < n) choose(asked, { scroll: "center" });
    else if (!narrow.matches && n) {
      // Something to look at: the most surprising token near the top.
      const near = data.bits.slice(0, 200);
      choose(near.indexOf(Math.max(...near.map((b) => b ?? 0))), { scroll: false, open: false, remember: false });
    }
  }

  for (const root of document.querySelectorAll(".viewer")) mount(root);
})();
