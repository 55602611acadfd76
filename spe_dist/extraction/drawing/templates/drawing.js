"use strict";
// Arcs are laid out for the width that the page has, and again whenever it changes. Reads and writes of the whole page
// are kept apart, so that the browser computes its layout twice and not once a sentence.
const LEVEL = 17, LOWEST = 19, TOP = 10, ARROW = 4, BEND = 6, MARGIN = 8, NAME = 18, PAPER = 900;
const SVG = "http://www.w3.org/2000/svg";
const drawings = [...document.querySelectorAll(".drawn")].map((box) => ({
  box,
  text: box.querySelector("p"),
  marks: [...box.querySelectorAll("mark")],
  relations: [...box.querySelectorAll("li")],
}));
const measure = document.createElement("canvas").getContext("2d");
measure.font = `11px ${getComputedStyle(document.body).fontFamily}`;
const widths = new Map();

function widthOf(text) {
  if (!widths.has(text)) widths.set(text, measure.measureText(text).width);
  return widths.get(text);
}

function cut(text, letters) {
  const all = Array.from(text);
  return all.length > letters ? `${all.slice(0, letters - 1).join("").trimEnd()}…` : text;
}

/** The lines of a drawing: where each begins and which marks are on it; a mark inside another is on its line. */
function linesOf(drawing) {
  const origin = drawing.box.getBoundingClientRect();
  const lines = [];
  let bottom = -Infinity;
  const segments = [];
  for (const mark of drawing.marks) {
    if (mark.classList.contains("off")) continue;
    const rect = mark.getBoundingClientRect();
    const outer = mark.parentElement.closest("mark:not(.off)");
    if (!outer && rect.top >= bottom - 2) {
      lines.push({ top: rect.top - origin.top, marks: [], arcs: [] });
      bottom = rect.bottom;
    }
    const line = lines.length - 1;
    if (!outer) {
      bottom = Math.max(bottom, rect.bottom);
      lines[line].marks.push(mark);
    }
    lines[line].top = Math.min(lines[line].top, rect.top - origin.top);
    segments.push({
      mark, line, entity: mark.dataset.e, left: rect.left - origin.left, right: rect.right - origin.left,
      top: rect.top - origin.top, ends: [],
    });
  }
  return { lines, segments, width: origin.width };
}

/** The parts of two entities that are nearest to each other. */
function nearest(heads, tails) {
  let best = null;
  for (const head of heads)
    for (const tail of tails) {
      const distance = 1e6 * Math.abs(head.line - tail.line) + Math.abs(head.left - tail.left);
      if (!best || distance < best.distance) best = { head, tail, distance };
    }
  return best;
}

function label(relation, maximum, before = "", after = "") {
  const name = relation.querySelector("b").textContent;
  const probability = relation.querySelector("i")?.textContent;
  for (let letters = NAME; letters > 3; letters -= 3) {
    const parts = [before && `${cut(before, letters)} →`, name, probability, after && `→ ${cut(after, letters)}`];
    const text = parts.filter(Boolean).join(" ");
    if (widthOf(text) + MARGIN <= maximum) return text;
  }
  for (let letters = name.length; letters > 4; letters--) {
    const text = [cut(name, letters), probability].filter(Boolean).join(" ");
    if (widthOf(text) + MARGIN <= maximum) return text;
  }
  return cut(name, 4);
}

/** Arcs of a drawing, each with its level; a relation between two lines has a half on either. */
function arcsOf(drawing, { lines, segments, width }) {
  const isRightToLeft = getComputedStyle(drawing.text).direction === "rtl";
  const pairs = [];
  for (const relation of drawing.relations) {
    if (relation.classList.contains("off")) continue;
    const [heads, tails] = [relation.dataset.h, relation.dataset.t].map((e) => segments.filter((s) => s.entity === e));
    if (heads.length && tails.length) pairs.push({ relation, ...nearest(heads, tails) });
  }
  // The ends at one entity are spread over it: arcs to the left stand left, far ones inside.
  for (const pair of pairs)
    for (const [end, here, there] of [["head", pair.head, pair.tail], ["tail", pair.tail, pair.head]]) {
      const goesOn = here.line !== there.line ? there.line > here.line : there.left > here.left;
      const isRight = here === there ? end === "tail" : here.line === there.line ? goesOn : goesOn !== isRightToLeft;
      const distance = 1e6 * Math.abs(here.line - there.line) + Math.abs(here.left - there.left);
      here.ends.push({ pair, end, order: isRight ? 1e9 - distance : distance - 1e9 });
    }
  for (const segment of segments) {
    segment.ends.sort((a, b) => a.order - b.order);
    segment.ends.forEach(({ pair, end }, i) => {
      const share = (i + 1) / (segment.ends.length + 1);
      pair[`${end}X`] = segment.left + (segment.right - segment.left) * share;
    });
  }
  for (const { relation, head, tail, headX, tailX } of pairs) {
    const [headText, tailText] = [...relation.querySelectorAll("bdi")].map((name) => name.textContent);
    const ends = [{ x: headX, top: head.top }, { x: tailX, top: tail.top, isTail: true }];
    if (head.line === tail.line) {
      ends.sort((a, b) => a.x - b.x);
      lines[head.line].arcs.push({ relation, left: ends[0], right: ends[1], text: label(relation, width) });
      continue;
    }
    for (const [i, segment] of [head, tail].entries()) {
      const goesOn = segment.line < (i ? head : tail).line;
      const isOpenRight = goesOn !== isRightToLeft;
      const border = { x: isOpenRight ? width : 0, isOpen: true };
      const text = i ? label(relation, width, headText) : label(relation, width, "", tailText);
      lines[segment.line].arcs.push(
        isOpenRight ? { relation, left: ends[i], right: border, text } : { relation, left: border, right: ends[i], text });
    }
  }
  for (const line of lines) place(line.arcs, width);
}

/** Each label in the middle of its arc, as far as the borders allow; each arc above all shorter ones near it. */
function place(arcs, width) {
  for (const arc of arcs) {
    arc.room = widthOf(arc.text) + MARGIN;
    arc.start = Math.max(0, Math.min((arc.left.x + arc.right.x - arc.room) / 2, width - arc.room));
    arc.from = Math.min(arc.left.x, arc.start);
    arc.to = Math.max(arc.right.x, arc.start + arc.room);
  }
  arcs.sort((a, b) => a.right.x - a.left.x - (b.right.x - b.left.x) || a.left.x - b.left.x);
  arcs.forEach((arc, i) => {
    const below = arcs.slice(0, i).filter((other) => other.from < arc.to + MARGIN && arc.from < other.to + MARGIN);
    arc.level = Math.max(-1, ...below.map((other) => other.level)) + 1;
  });
}

function element(name, attributes, ...inside) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...inside);
  return made;
}

function drawArc(arc, top) {
  const middle = top - LOWEST - arc.level * LEVEL; // of the label
  const { left, right } = arc;
  const isCovered = left.x > arc.start - BEND && right.x < arc.start + arc.room + BEND;
  const y = isCovered ? middle + 8 : middle;
  const bend = Math.min(isCovered ? BEND / 2 : BEND, (right.x - left.x) / 2);
  const path =
    (left.isOpen ? `M${left.x} ${y}` : `M${left.x} ${left.top}V${y + bend}q0 ${-bend} ${bend} ${-bend}`) +
    (right.isOpen ? `H${right.x}` : `H${right.x - bend}q${bend} 0 ${bend} ${bend}V${right.top}`);
  const parts = [element("path", { d: path })];
  for (const end of [left, right])
    if (end.isTail) {
      const [x, base] = [end.x, end.top];
      parts.push(element("polygon", { points: `${x - ARROW},${base - 2 * ARROW} ${x + ARROW},${base - 2 * ARROW} ${x},${base + 1}` }));
    }
  const centre = arc.start + arc.room / 2;
  const patch = element("rect", { x: arc.start + 1, y: middle - 8, width: arc.room - 2, height: 15 });
  const text = element("text", { x: centre, y: middle + 4 }, arc.text);
  const [head, tail] = arc.relation.querySelectorAll("bdi");
  const kind = arc.relation.firstChild.textContent;
  const probability = arc.relation.dataset.p ? ` ${Number(arc.relation.dataset.p).toFixed(3)}` : "";
  const title = element("title", {}, `${kind}${probability}: ${head.textContent} → ${tail.textContent}`);
  return element("g", { class: arc.relation.className }, title, ...parts, patch, text);
}

function layOut(some = drawings) {
  const shown = some.filter((drawing) => drawing.box.offsetParent);
  for (const { box, marks } of shown) {
    box.querySelector("svg")?.remove();
    box.classList.remove("listed");
    for (const mark of marks) mark.style.marginTop = "";
  }
  const layouts = shown.filter((drawing) => drawing.relations.length).map((drawing) => [drawing, linesOf(drawing)]);
  for (const [drawing, layout] of layouts) arcsOf(drawing, layout);
  for (const [, { lines }] of layouts)
    for (const { arcs, marks } of lines) {
      const room = arcs.length ? LOWEST + TOP + LEVEL * Math.max(...arcs.map((arc) => arc.level)) : 0;
      for (const mark of room ? marks : []) mark.style.marginTop = `${room}px`;
    }
  if (document.body.classList.contains("paper")) listTallOnes(layouts);
  const moved = layouts.map(([drawing, { segments }]) => {
    const origin = drawing.box.getBoundingClientRect().top;
    return segments.map(({ mark }) => mark.getBoundingClientRect().top - origin);
  });
  layouts.forEach(([drawing, { lines, segments }], i) => {
    const shift = new Map(segments.map((segment, j) => [segment.line, moved[i][j] - segment.top]));
    const svg = element("svg", { "aria-hidden": "true" });
    lines.forEach(({ arcs, top }, line) => {
      const down = shift.get(line);
      for (const arc of [...arcs].sort((a, b) => b.level - a.level)) {
        for (const end of [arc.left, arc.right]) if (!end.isOpen) end.top += down;
        svg.append(drawArc(arc, top + down));
      }
    });
    drawing.box.append(svg);
  });
}

/** On paper a drawing that no page holds has its relations as a list: arcs cannot be cut between pages. */
function listTallOnes(layouts) {
  const tall = layouts.filter(([{ box }]) => box.getBoundingClientRect().height > PAPER);
  for (const one of tall) {
    layouts.splice(layouts.indexOf(one), 1);
    one[0].box.classList.add("listed");
    for (const mark of one[0].marks) mark.style.marginTop = "";
  }
}

let lastWidth = document.body.clientWidth;
new ResizeObserver(() => {
  if (document.body.clientWidth === lastWidth) return;
  lastWidth = document.body.clientWidth;
  layOut();
}).observe(document.body);
addEventListener("beforeprint", () => {
  document.body.classList.add("paper");
  layOut();
});
addEventListener("afterprint", () => {
  document.body.classList.remove("paper");
  layOut();
});

// Filters. What is not ticked, or not probable enough, is neither boxed nor drawn; its words stay.
const form = document.getElementById("filters");
const articles = [...document.querySelectorAll("article")].map((article) => ({
  article,
  words: plainText(article.querySelector(".drawn p")).toLowerCase(),
  drawings: drawings.filter(({ box }) => article.contains(box)),
}));
const conditions = []; // further ones of a page: (article) => whether it is wanted

function plainText(node) {
  if (node.nodeName === "SMALL") return "";
  return node.nodeType === Node.TEXT_NODE ? node.data : [...node.childNodes].map(plainText).join("");
}

function chosen(name) {
  const fieldset = form.querySelector(`[data-of="${name}"]`);
  const kinds = new Set([...fieldset.querySelectorAll("input:checked")].map((input) => `t${input.value}`));
  const least = fieldset.querySelector("input[type=range]")?.value ?? 0;
  fieldset.querySelectorAll("output").forEach((output) => (output.value = `${least}%`));
  return ({ classList, dataset }) => kinds.has(classList[0]) && (!dataset.p || 100 * dataset.p >= least);
}

function choose() {
  const [isEntity, isRelation] = [chosen("entities"), chosen("relations")];
  for (const drawing of drawings) {
    const shown = new Set();
    for (const mark of drawing.marks)
      if (!mark.classList.toggle("off", !isEntity(mark))) shown.add(mark.dataset.e);
    for (const relation of drawing.relations) {
      const { h, t } = relation.dataset;
      relation.classList.toggle("off", !(isRelation(relation) && shown.has(h) && shown.has(t)));
    }
    drawing.isEmpty = !shown.size;
  }
}

function filter() {
  const typed = form.querySelector("#words").value.trim().toLowerCase();
  const onlyFound = form.querySelector("#found")?.checked;
  let shown = 0;
  for (const one of articles) {
    const isWanted = one.words.includes(typed) && !(onlyFound && one.drawings.every(({ isEmpty }) => isEmpty));
    one.article.hidden = !(isWanted && conditions.every((condition) => condition(one.article)));
    shown += !one.article.hidden;
  }
  form.querySelector("#count").value = `${shown.toLocaleString("en")} of ${articles.length.toLocaleString("en")} shown`;
  layOut();
}

form.addEventListener("input", () => {
  choose();
  filter();
});
form.addEventListener("click", ({ target }) => {
  if (target.type !== "button") return;
  const boxes = target.closest("fieldset").querySelectorAll("input[type=checkbox]");
  for (const box of boxes) box.checked = target.textContent === "all";
  choose();
  filter();
});
form.addEventListener("submit", (event) => event.preventDefault());
