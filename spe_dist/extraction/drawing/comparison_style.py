"""Style and script of the page that compares two systems."""

STYLE = """
body { max-width: 1010px; }
.scroll { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .22rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; } tbody th { font-weight: normal; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--page); }
.finds .in { padding-left: 1rem; }
details { margin: .6rem 0; } summary { cursor: pointer; }
.bar { display: flex; width: 9rem; height: .8rem; border-radius: 2px; overflow: hidden; }
.key { display: inline-block; width: .8rem; height: .8rem; border-radius: 2px; margin-left: .8rem; }
.key:first-child { margin-left: 0; }
.bar .k, .key.k { background: #4c9a6a; }
.bar .a, .key.a { background: #3b7dd8; }
.bar .b, .key.b { background: #e08a1e; }
.bar .n, .key.n { background: #9a9fa8; }
#filters { position: sticky; top: 0; z-index: 1; display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center;
  padding: .6rem 0; background: var(--page); border-bottom: 1px solid var(--line); }
#filters select, #filters input { font: inherit; max-width: 100%; }
#count { color: var(--dim); }
article { border-bottom: 1px solid var(--line); padding: .4rem 0 1rem; }
article h3 { font-size: 1rem; margin: .6rem 0 .2rem; }
article h4 { font-size: .85rem; margin: .7rem 0 0; }
article h3 .dim, article h4 .dim { font-weight: normal; font-size: .85rem; overflow-wrap: anywhere; }
"""

SCRIPT = """
"use strict";
// A tag is a letter, who finds the item, and a number, its kind: "a3" is found by A alone and of kind 3.
const articles = [...document.querySelectorAll("article")];
const [show, of, words, count] = ["show", "of", "words", "count"].map((id) => document.getElementById(id));
function filter() {
  const kinds = of.value ? new Set(of.value.split(",")) : null;
  const typed = words.value.trim().toLowerCase();
  let shown = 0;
  for (const article of articles) {
    const tags = article.dataset.tags.split(" ");
    const isWanted = (!show.value && !kinds) || tags.some(
      (tag) => tag && (!show.value || show.value.includes(tag[0])) && (!kinds || kinds.has(tag.slice(1))));
    article.hidden = !(isWanted && article.dataset.words.includes(typed));
    shown += article.hidden ? 0 : 1;
  }
  count.textContent = `${shown.toLocaleString("en")} of ${articles.length.toLocaleString("en")} drawn sentences`;
}
for (const field of [show, of, words]) field.addEventListener("input", filter);
document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
filter();
"""
