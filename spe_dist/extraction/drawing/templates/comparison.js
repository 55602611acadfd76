// A tag is a letter, who finds the item, and a number, its kind: "a3" is found by A alone and of kind 3.
const [show, of] = ["show", "of"].map((id) => document.getElementById(id));
conditions.push(({ dataset }) => {
  if (!show.value && !of.value) return true;
  const kinds = of.value ? new Set(of.value.split(",")) : null;
  const isFit = (tag) => tag && (!show.value || show.value.includes(tag[0])) && (!kinds || kinds.has(tag.slice(1)));
  return dataset.tags.split(" ").some(isFit);
});
