// Figures that were drawn ahead: sliders and choices pick one.
const chosen = data.start.slice(), read = reader();
const bar = make("div", { className: "av-bar" });
const draw = () => {
  still.src = data.frames[chosen.reduce((sum, place, k) => sum * data.values[k].length + place, 0)];
  still.alt = data.names.map((name, k) => `${name} ${data.values[k][chosen[k]]}`).join(", ");
};
data.names.forEach((name, k) => {
  const values = data.values[k].map(String), change = place => { chosen[k] = place; draw(); read.textContent = still.alt; };
  if (values.length < 2) return;
  bar.append(data.values[k].every(value => typeof value === "string") ? choice(name, values, chosen[k], change) : slider(name, { high: values.length - 1, value: chosen[k], text: place => values[place], change }));
});
still.before(bar);
still.after(read);
draw();
