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

const unpack = (text, type, length) => {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  const found = new type(bytes.buffer);
  return found.length === length ? found : new type(length).fill(found[0]); // all the same
};
const unpacked = new WeakMap();
const numbersOf = (response, view = state.view) => {
  const own = response.views[view]; // what is the method's; the rest is there once
  if (!unpacked.has(own)) {
    const packed = { ...response, ...own };
    const from = (name, type) => unpack(packed[name], type, response.length);
    const found = { tokens: from("tokens", Uint32Array), policy: from("policy", Uint8Array) };
    for (const name of data.columns) if (packed[name] !== null) found[name] = from(name, Float32Array);
    found.change = found.advantage.map((a, i) => a - found.base[i]);
    unpacked.set(own, found);
  }
  return unpacked.get(own);
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

const several = data.steps[0].views.length > 1;
// A page that was asked for with a method opens as that one, in a colour in which methods differ.
const state = { step: 0, group: 0, view: several ? 1 : 0, colour: several ? "part" : "entropy", current: null, read: null };
const step = () => data.steps[state.step];
const view = () => step().views[state.view];
const chosen = () => (view().colours.includes(state.colour) ? state.colour : view().colours[0]);
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
    const colour = chosen();
    const value = valueOf(colour, numbers, i);
    kinds.push(classOf(colour, value, step().limits[colour]));
    if (COLOURS[colour].middle === 1 && value < 0) kinds.push("turned");
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
  state.current = state.read = null;
  at("readout").textContent = HINT;
  at("group").value = state.group;
  at("prompt").lastElementChild.textContent = promptText(group().prompt);
  weigh();
  at("responses").replaceChildren(
    ...columns.map(({ response, numbers }, column) => {
      const tokens = make("div", { class: "tokens", tabindex: 0, role: "group" });
      tokens.dataset.column = column;
      tokens.append(...chunksOf(column, numbers));
      const own = response.prompt === null ? [] : [
        make("details", {}, make("summary", {}, "Prompt"), make("div", { class: "text", dir: "auto" }, promptText(response.prompt))),
      ];
      return make("article", {}, make("h3"), ...own, tokens);
    }),
  );
  judge();
  document.querySelectorAll(".chunk").forEach((chunk) => observer.observe(chunk));
}

// The group's numbers, and then its outcomes, as the method has them.
function weigh() {
  columns = group().responses.map((response) => ({
    response, numbers: numbersOf(response), outcome: response.views[state.view].success ? "success" : "failure",
  }));
}
function judge() {
  columns.forEach(({ response, numbers, outcome }, column) => {
    const article = at("responses").children[column];
    const title = `${outcome}, reward ${number(response.reward)}, ${numbers.tokens.length} tokens`;
    article.className = outcome;
    article.firstElementChild.textContent = title;
    article.lastElementChild.setAttribute("aria-label", `response ${column + 1}: ${title}`);
  });
}

function recolour() {
  showLegend();
  document.querySelectorAll(".chunk span").forEach((span) => {
    const { numbers } = columns[span.parentNode.dataset.column];
    dye(span, numbers, Number(span.dataset.i));
  });
  if (state.read) read(state.read.column, state.read.i);
}

function showLegend() {
  const { title, unit, diverging, middle } = COLOURS[chosen()];
  const limit = step().limits[chosen()];
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

const valueIn = (numbers, colour, i) => {
  if (!numbers[colour]) return "not known";
  const none = colour === "weight" && Number.isNaN(numbers.weight[i]) && numbers.base[i] === 0;
  return none ? "none (the base is 0)" : number(numbers[colour][i]);
};

function read(column, i) {
  state.read = { column, i };
  const { numbers, response, outcome } = columns[column];
  const valueOfAll = (colour) => {
    if (!several || colour !== chosen()) return valueIn(numbers, colour, i);
    const all = step().views.map(({ name }, v) => `${name}: ${valueIn(numbersOf(response, v), colour, i)}`);
    return `${valueIn(numbers, colour, i)} [${all.join(", ")}]`;
  };
  const policy = numbers.policy[i];
  const parts = [make("b", {}, tokenText(numbers.tokens[i])), ` id ${data.ids[numbers.tokens[i]]}, place ${i + 1}`];
  if (!policy) parts.push(", not the policy's");
  else {
    if (numbers.entropy) parts.push(` · entropy ${number(numbers.entropy[i], " nats")}`);
    if (numbers.old_log_prob) parts.push(` · log-probability ${number(numbers.old_log_prob[i])}`);
    if (numbers.weight) parts.push(` · weight ${valueOfAll("weight")}`);
    parts.push(` · base ${number(numbers.base[i])} · advantage ${valueOfAll("advantage")}`);
    parts.push(` · change ${valueOfAll("change")}`);
    if (numbers.part) parts.push(` · the entropy's part ${valueOfAll("part")}`);
  }
  at("readout").replaceChildren(...parts, ` · response ${Number(column) + 1} (${outcome})`);
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
  at("method").replaceChildren(make("legend", {}, "Method"), ...step().views.map(({ name }, i) => radio("method", i, name, setView)));
  state.group = Math.min(state.group, step().groups.length - 1);
  showView();
  showLegend();
  showGroup();
}

function showView() {
  check("method", state.view);
  check("colour", chosen());
  document.querySelectorAll("#colour input").forEach((input) => (input.disabled = !view().colours.includes(input.value)));
  const options = step().groups.map((g, i) => {
    const right = g.responses.filter((r) => r.views[state.view].success).length;
    return make("option", { value: i }, `${i + 1}: ${right} of ${g.responses.length} right, ${g.uid.slice(0, 8)}`);
  });
  at("group").replaceChildren(...options);
  at("group").value = state.group;
  at("charts").replaceChildren(...view().histograms.map(histogram), ...view().courses.flatMap(course));
  at("extremes").replaceChildren(...view().extremes.map(({ title, tokens }) => {
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
}

// -------------------------------------------------------------------------------------------------------------- control

const radio = (name, value, title, set) => {
  const input = make("input", { type: "radio", name, value });
  input.addEventListener("change", () => set(value));
  return make("label", {}, input, " ", title);
};
const check = (name, value) =>
  document.querySelectorAll(`#${name} input`).forEach((input) => (input.checked = input.value === String(value)));
function setColour(colour) {
  if (!view().colours.includes(colour)) return;
  state.colour = colour;
  check("colour", colour);
  recolour();
}
// In place: the tokens stay, and with them what is chosen and how far all is scrolled.
function setView(number) {
  state.view = number;
  weigh();
  judge();
  showView();
  recolour();
}
function move(by) {
  const number = step().groups.length;
  state.group = (state.group + by + number) % number;
  showGroup();
}

data.steps.forEach((s, i) => at("step").append(make("option", { value: i }, String(s.number))));
at("colour").append(...Object.entries(COLOURS).map(([name, { title }]) => radio("colour", name, title, setColour)));
document.querySelectorAll(".several").forEach((element) => (element.hidden = !several));
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
  if (event.key === "m" && several) setView((state.view + 1) % step().views.length);
  const colour = Object.keys(COLOURS)[Number(event.key) - 1];
  if (colour && event.key >= "1") setColour(colour);
});
showStep();
