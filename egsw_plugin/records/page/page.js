"use strict";
// Text of models is put into the page as text nodes alone; the policy in the head lets nothing else run or be fetched.
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
};
const drawn = (tag, attributes, text) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
};
const number = (x, unit = "") => (Number.isNaN(x) ? "not a number" : Number(x.toPrecision(4)) + unit);

// ------------------------------------------------------------------------------------------------------------ numbers

const unpack = (text, type) => {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return new type(bytes.buffer);
};
const unpacked = new WeakMap();
const numbersOf = (response) => {
  if (!unpacked.has(response)) {
    const found = { tokens: unpack(response.tokens, Uint32Array), policy: unpack(response.policy, Uint8Array) };
    for (const name of data.columns) if (response[name] !== null) found[name] = unpack(response[name], Float32Array);
    found.change = found.advantage.map((a, i) => a - found.base[i]);
    unpacked.set(response, found);
  }
  return unpacked.get(response);
};

// ------------------------------------------------------------------------------------------------------------- colours

const CLASSES = 8; // on each side of the middle, or from 0 up
const COLOURS = {
  entropy: { title: "entropy", unit: "nats", diverging: false },
  weight: { title: "weight", unit: "", diverging: true, middle: 1 },
  part: { title: "the entropy's part", unit: "", diverging: true, middle: 0 },
  advantage: { title: "advantage", unit: "", diverging: true, middle: 0 },
  change: { title: "change against the base", unit: "", diverging: true, middle: 0 },
  surprisal: { title: "-log-probability", unit: "nats", diverging: false },
};
const valueOf = (colour, numbers, i) => {
  if (colour === "surprisal") return -numbers.old_log_prob[i];
  return numbers[colour][i];
};
const classOf = (colour, value, limit) => {
  const { diverging, middle } = COLOURS[colour];
  if (!Number.isFinite(value)) return "";
  if (!diverging) return "s" + Math.max(0, Math.min(CLASSES, Math.round((limit ? value / limit : 0) * CLASSES)));
  // A weight is a factor: 2 is as far from 1 as 1/2 is.
  const from = middle === 1 ? (value > 0 ? Math.log(value) : -Infinity) : value;
  const part = limit ? from / limit : 0;
  return "d" + (CLASSES + Math.max(-CLASSES, Math.min(CLASSES, Math.round(part * CLASSES))));
};

// ---------------------------------------------------------------------------------------------------------------- text

const LONGEST = 200; // characters of a token that are shown
// What has no picture, changes the direction of writing, or is half of a pair of surrogates.
const UNSEEN = new RegExp(
  "[\\u0000-\\u001f\\u007f-\\u00a0\\u00ad\\u061c\\u180e\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb" +
    "\\ud800-\\udfff\\u{e0000}-\\u{e0fff}]",
  "u",
);
const named = (character) => {
  const code = character.codePointAt(0);
  if (character === "\n") return "↵\n";
  if (character === "\t") return "⇥\t";
  if (code < 0x20) return String.fromCharCode(0x2400 + code);
  return "⟨U+" + code.toString(16).toUpperCase().padStart(4, "0") + "⟩";
};
const visible = (text) => [...text].map((c) => (UNSEEN.test(c) ? named(c) : c)).join("");
const shown = (text) =>
  text.length <= LONGEST ? visible(text) : visible(text.slice(0, LONGEST)) + `… (${text.length} characters)`;
const promptText = (text) => text.split("\n").map(visible).join("\n");
const tokenText = (token) => shown(data.vocabulary[token]);

// --------------------------------------------------------------------------------------------------------------- state

const state = { step: 0, group: 0, colour: data.steps[0].colours[0], current: null };
const step = () => data.steps[state.step];
const group = () => step().groups[state.group];
let columns = [];

const observer = new IntersectionObserver(
  (entries) => entries.forEach((entry) => entry.isIntersecting && fill(entry.target)),
  { rootMargin: "1000px", scrollMargin: "1000px" }, // the second is for the response's own scrolling
);

// A chunk of a response is made when it comes near the window; its tokens are spans that know their number.
function fill(chunk) {
  if (chunk.firstChild) return;
  const { response, numbers } = columns[chunk.dataset.column];
  const end = Number(chunk.dataset.end);
  for (let i = Number(chunk.dataset.begin); i < end; i++) {
    const token = numbers.tokens[i];
    const span = make("span", { "data-i": i });
    span.textContent = tokenText(token);
    chunk.append(span);
    dye(span, numbers, i);
  }
  chunk.style.minHeight = "";
  observer.unobserve(chunk);
}

function dye(span, numbers, i) {
  const kinds = [];
  if (numbers.policy[i]) {
    const value = valueOf(state.colour, numbers, i);
    kinds.push(classOf(state.colour, value, step().limits[state.colour]));
    if (COLOURS[state.colour].middle === 1 && value < 0) kinds.push("turned");
  } else kinds.push("tool");
  if (data.special[numbers.tokens[i]]) kinds.push("special");
  if (state.current && state.current.i === i && columns[state.current.column].numbers === numbers) kinds.push("current");
  span.className = kinds.join(" ");
}

const LEAST = 120;
const MOST = 400; // tokens of a chunk, which ends with a line where it can
function chunksOf(column, numbers) {
  const chunks = [];
  let begin = 0;
  let characters = 0;
  for (let i = 0; i < numbers.tokens.length; i++) {
    const text = data.vocabulary[numbers.tokens[i]];
    characters += Math.min(text.length, LONGEST);
    const length = i + 1 - begin;
    if ((length >= LEAST && text.includes("\n")) || length === MOST || i + 1 === numbers.tokens.length) {
      const chunk = make("div", { class: "chunk", dir: "auto", "data-column": column, "data-begin": begin, "data-end": i + 1 });
      chunk.style.minHeight = Math.ceil(characters / 34) * 24 + "px";
      chunks.push(chunk);
      begin = i + 1;
      characters = 0;
    }
  }
  return chunks;
}

const HINT = at("readout").textContent;
function showGroup() {
  observer.disconnect();
  state.current = null;
  at("readout").textContent = HINT;
  at("group").value = state.group;
  at("prompt").lastElementChild.textContent = promptText(group().prompt);
  columns = group().responses.map((response) => ({ response, numbers: numbersOf(response) }));
  at("responses").replaceChildren(
    ...columns.map(({ response, numbers }, column) => {
      const outcome = response.success ? "success" : "failure";
      const title = `${outcome}, reward ${number(response.reward)}, ${numbers.tokens.length} tokens`;
      const tokens = make("div", { class: "tokens", tabindex: 0, role: "group", "aria-label": `response ${column + 1}: ${title}` });
      tokens.dataset.column = column;
      tokens.append(...chunksOf(column, numbers));
      const own = response.prompt === null ? [] : [
        make("details", {}, make("summary", {}, "Prompt"), make("div", { class: "text", dir: "auto" }, promptText(response.prompt))),
      ];
      return make("article", { class: outcome }, make("h3", {}, title), ...own, tokens);
    }),
  );
  document.querySelectorAll(".chunk").forEach((chunk) => observer.observe(chunk));
}

function recolour() {
  showLegend();
  document.querySelectorAll(".chunk span").forEach((span) => {
    const { numbers } = columns[span.parentNode.dataset.column];
    dye(span, numbers, Number(span.dataset.i));
  });
}

function showLegend() {
  const { title, unit, diverging, middle } = COLOURS[state.colour];
  const limit = step().limits[state.colour];
  const [low, high] = !diverging ? [0, limit] : middle === 1 ? [Math.exp(-limit), Math.exp(limit)] : [-limit, limit];
  const swatches = [];
  const letter = diverging ? "d" : "s";
  for (let i = 0; i <= (diverging ? 2 * CLASSES : CLASSES); i++) swatches.push(make("i", { class: letter + i }));
  const end = unit ? " " + unit : "";
  const words = limit === null ? `${title}: no finite number`
    : limit === 0 ? `${title}: ${middle === undefined ? 0 : middle}${end} everywhere` : null;
  at("legend").setAttribute("aria-label", words || `${title}, from ${number(low)} to ${number(high)}${end}`);
  if (words) at("legend").replaceChildren(words);
  else {
    const centre = diverging ? ` (white: ${middle}${middle === 1 ? "; underlined: below 0" : ""})` : "";
    at("legend").replaceChildren(number(low), make("span", {}, ...swatches), number(high) + end + centre);
  }
}

// ------------------------------------------------------------------------------------------------------------- readout

function read(column, i) {
  const { numbers, response } = columns[column];
  const policy = numbers.policy[i];
  const parts = [make("b", {}, tokenText(numbers.tokens[i])), ` id ${data.ids[numbers.tokens[i]]}, place ${i + 1}`];
  if (!policy) parts.push(", not the policy's");
  else {
    if (numbers.entropy) parts.push(` · entropy ${number(numbers.entropy[i], " nats")}`);
    if (numbers.old_log_prob) parts.push(` · log-probability ${number(numbers.old_log_prob[i])}`);
    if (numbers.weight) {
      const none = Number.isNaN(numbers.weight[i]) && numbers.base[i] === 0;
      parts.push(` · weight ${none ? "none (the base is 0)" : number(numbers.weight[i])}`);
    }
    parts.push(` · base ${number(numbers.base[i])} · advantage ${number(numbers.advantage[i])}`);
    parts.push(` · change ${number(numbers.change[i])}`);
    if (numbers.part) parts.push(` · the entropy's part ${number(numbers.part[i])}`);
  }
  at("readout").replaceChildren(...parts, ` · response ${Number(column) + 1} (${response.success ? "success" : "failure"})`);
}

const spanOf = (column, i) => {
  const tokens = at("responses").children[column].lastElementChild;
  const chunk = [...tokens.children].find((c) => Number(c.dataset.begin) <= i && i < Number(c.dataset.end));
  fill(chunk);
  return chunk.children[i - Number(chunk.dataset.begin)];
};

function choose(column, i, scroll = true) {
  const length = columns[column].numbers.tokens.length;
  if (!length) return;
  const last = state.current;
  state.current = { column, i: Math.max(0, Math.min(length - 1, i)) };
  if (last) dye(spanOf(last.column, last.i), columns[last.column].numbers, last.i);
  const span = spanOf(column, state.current.i);
  dye(span, columns[column].numbers, state.current.i);
  if (scroll) span.scrollIntoView({ block: "nearest", inline: "nearest" });
  read(column, state.current.i);
}

// -------------------------------------------------------------------------------------------------------------- charts

const WIDTH = 320;
const HEIGHT = 150;
const MARGIN = 34;
function chart(caption, from, to, bottom, top, unit, last = "") {
  const svg = drawn("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": caption });
  const x = (value) => MARGIN + ((value - from) / (to - from || 1)) * (WIDTH - MARGIN - 8);
  const y = (value) => HEIGHT - 20 - ((value - bottom) / (top - bottom || 1)) * (HEIGHT - 32);
  svg.append(drawn("line", { class: "axis", x1: MARGIN, x2: WIDTH - 8, y1: HEIGHT - 20, y2: HEIGHT - 20 }));
  for (const [value, anchor] of [[from, "start"], [(from + to) / 2, "middle"], [to, "end"]]) {
    const more = anchor === "end" ? unit + last : "";
    svg.append(drawn("text", { x: x(value), y: HEIGHT - 6, "text-anchor": anchor }, number(value) + more));
  }
  let digits = 2; // as many as tell the ends apart
  while (digits < 6 && bottom !== top && bottom.toPrecision(digits) === top.toPrecision(digits)) digits++;
  for (const value of [bottom, top]) {
    svg.append(drawn("text", { x: MARGIN - 3, y: y(value) + 4, "text-anchor": "end" }, String(Number(value.toPrecision(digits)))));
  }
  return { svg, x, y, figure: make("figure", {}, make("figcaption", {}, caption), svg) };
}

function histogram({ title, unit, edges, success, failure }) {
  const top = Math.max(...success, ...failure, 1e-9);
  const { svg, x, y, figure } = chart(`${title}: successes (blue), failures (orange), % of their tokens`,
    edges[0], edges[edges.length - 1], 0, 100 * top, unit, " or more");
  for (const [name, parts] of [["success", success], ["failure", failure]]) {
    parts.forEach((part, i) => {
      const height = y(0) - y(100 * part);
      svg.append(drawn("rect", { class: `bar of-${name}`, x: x(edges[i]), y: y(100 * part), width: x(edges[i + 1]) - x(edges[i]), height }));
    });
  }
  return figure;
}

function course({ title, edges, success, failure, few }) {
  const all = [...success, ...failure].filter((v) => v !== null);
  if (!all.length) return [];
  const { svg, x, y, figure } = chart(`mean ${title} by place in the response: successes (blue), failures (orange, dashed); faint: of fewer than 3 responses`,
    edges[0], edges[edges.length - 1], Math.min(...all), Math.max(...all), " tokens");
  for (const [name, means] of [["success", success], ["failure", failure]]) {
    const points = means.map((mean, i) => mean === null ? null : `${x((edges[i] + edges[i + 1]) / 2)},${y(mean)}`);
    // Piece by piece: nothing is drawn over places without a token, and what few responses reach is faint.
    for (let from = 0; from < points.length; from++) {
      if (points[from] === null) continue;
      let to = from;
      while (to + 1 < points.length && points[to + 1] !== null && few[name][to + 1] === few[name][from]) to++;
      const joined = to + 1 < points.length && points[to + 1] !== null ? to + 1 : to;
      const piece = points.slice(from, joined + 1);
      if (piece.length === 1) piece.push(piece[0]);
      svg.append(drawn("polyline", { class: `line of-${name}${few[name][from] ? " few" : ""}`, points: piece.join(" ") }));
      from = to;
    }
  }
  return [figure];
}

function showStep() {
  at("step").value = state.step;
  at("about").textContent = `${data.title} · step ${step().number} · ${step().method}`;
  const options = step().groups.map((g, i) => {
    const right = g.responses.filter((r) => r.success).length;
    return make("option", { value: i }, `${i + 1}: ${right} of ${g.responses.length} right, ${g.uid.slice(0, 8)}`);
  });
  at("group").replaceChildren(...options);
  if (!step().colours.includes(state.colour)) state.colour = step().colours[0];
  document.querySelectorAll("#colour input").forEach((input) => {
    input.disabled = !step().colours.includes(input.value);
    input.checked = input.value === state.colour;
  });
  at("charts").replaceChildren(...step().histograms.map(histogram), ...step().courses.flatMap(course));
  at("extremes").replaceChildren(...step().extremes.map(({ title, tokens }) => {
    const rows = tokens.map(({ value, group, response, token, before, own, after }) => {
      const button = make("button", { type: "button", class: "context", dir: "auto" },
        shown(before), make("b", {}, shown(own)), shown(after));
      button.addEventListener("click", () => {
        state.group = group;
        showGroup();
        choose(response, token);
        at("responses").children[response].scrollIntoView({ block: "center", inline: "center" });
      });
      return make("tr", {}, make("td", {}, number(value)), make("td", {}, button));
    });
    return make("div", {}, make("h2", {}, title), make("table", {}, make("tbody", {}, ...rows)));
  }));
  state.group = Math.min(state.group, step().groups.length - 1);
  showLegend();
  showGroup();
}

// -------------------------------------------------------------------------------------------------------------- control

function setColour(colour) {
  if (!step().colours.includes(colour)) return;
  state.colour = colour;
  document.querySelectorAll("#colour input").forEach((input) => (input.checked = input.value === colour));
  recolour();
}
function move(by) {
  const number = step().groups.length;
  state.group = (state.group + by + number) % number;
  showGroup();
}

data.steps.forEach((s, i) => at("step").append(make("option", { value: i }, String(s.number))));
Object.entries(COLOURS).forEach(([name, { title }]) => {
  const input = make("input", { type: "radio", name: "colour", value: name });
  input.addEventListener("change", () => setColour(name));
  at("colour").append(make("label", {}, input, " ", title));
});
at("step").addEventListener("change", (event) => ((state.step = Number(event.target.value)), showStep()));
at("group").addEventListener("change", (event) => ((state.group = Number(event.target.value)), showGroup()));
at("previous").addEventListener("click", () => move(-1));
at("next").addEventListener("click", () => move(1));
at("responses").addEventListener("mouseover", (event) => {
  const span = event.target.closest("[data-i]");
  if (span) read(span.parentNode.dataset.column, Number(span.dataset.i));
});
at("responses").addEventListener("click", (event) => {
  const span = event.target.closest("[data-i]");
  if (span) choose(Number(span.parentNode.dataset.column), Number(span.dataset.i), false);
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select")) return;
  const tokens = event.target.closest(".tokens");
  if (tokens) {
    const column = Number(tokens.dataset.column);
    const i = state.current && state.current.column === column ? state.current.i : -1;
    const end = columns[column].numbers.tokens.length - 1;
    const to = { ArrowRight: i + 1, ArrowLeft: Math.max(0, i - 1), Home: 0, End: end }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      choose(column, to);
      return;
    }
  }
  if (event.key === "n") move(1);
  if (event.key === "p") move(-1);
  const colour = Object.keys(COLOURS)[Number(event.key) - 1];
  if (colour && event.key >= "1") setColour(colour);
});
showStep();
