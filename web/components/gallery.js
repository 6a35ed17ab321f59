// A strip of thumbnails. Arrow keys move along it, as in a list box.

const strips = new WeakMap();

export default function ({ data, parentElement, setTriggerValue }) {
  let strip = strips.get(parentElement);
  if (!strip) {
    const list = document.createElement("div");
    list.className = "strip";
    list.setAttribute("role", "listbox");
    list.setAttribute("aria-label", "Images");
    list.setAttribute("aria-orientation", "horizontal");
    parentElement.append(list);
    strip = { list, items: new Map() };
    strips.set(parentElement, strip);
    list.addEventListener("keydown", (event) => move(strip, event));
  }
  strip.select = (id) => {
    mark(strip, id);
    setTriggerValue("selected", id);
  };
  update(strip, data);
  return () => {
    strip.list.remove();
    strips.delete(parentElement);
  };
}

function update(strip, { items, selected }) {
  const ids = new Set(items.map((item) => item.id));
  for (const [id, button] of strip.items) {
    if (!ids.has(id)) {
      button.remove();
      strip.items.delete(id);
    }
  }
  items.forEach((item, index) => {
    const button = strip.items.get(item.id) ?? added(strip, item.id);
    if (strip.list.children[index] !== button) strip.list.insertBefore(button, strip.list.children[index] ?? null);
    button.dataset.state = item.state;
    button.title = `${item.name}\n${item.note}`;
    button.setAttribute("aria-label", `${item.name}: ${item.note}`);
    const image = button.firstChild;
    if (item.picture && image.getAttribute("src") !== item.picture) image.src = item.picture;
    if (!item.picture) image.removeAttribute("src");
    image.hidden = !item.picture;
  });
  mark(strip, selected);
}

function added(strip, id) {
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("role", "option");
  const image = document.createElement("img");
  image.alt = "";
  image.loading = "lazy";
  const badge = document.createElement("span");
  badge.className = "badge";
  badge.setAttribute("aria-hidden", "true");
  button.append(image, badge);
  button.addEventListener("click", () => strip.select(id));
  strip.items.set(id, button);
  return button;
}

function mark(strip, selected) {
  const changed = strip.selected !== selected;
  strip.selected = selected;
  for (const [id, button] of strip.items) {
    button.setAttribute("aria-selected", String(id === selected));
    button.tabIndex = id === selected || !strip.items.has(selected) ? 0 : -1;
  }
  if (changed) reveal(strip.list, strip.items.get(selected));
}

// Scrolls the strip, not the page.
function reveal(list, button) {
  if (!button) return;
  const [box, own] = [list.getBoundingClientRect(), button.getBoundingClientRect()];
  if (own.left < box.left) list.scrollLeft -= box.left - own.left + 8;
  if (own.right > box.right) list.scrollLeft += own.right - box.right + 8;
}

function move(strip, event) {
  const buttons = [...strip.list.children];
  const at = buttons.indexOf(event.target);
  const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
  if (at < 0 || next === undefined || !buttons[next]) return;
  event.preventDefault();
  buttons[next].focus();
  buttons[next].click();
}
