// Compares an image with its result. Streamlit calls the default export again with each change of the data.

const views = new WeakMap();

export default function ({ data, parentElement }) {
  let view = views.get(parentElement);
  if (!view) {
    view = new Compare(parentElement);
    views.set(parentElement, view);
  }
  view.load(data);
  return () => view.unload();
}

const BACKGROUNDS = { checkerboard: "Checkerboard", white: "White", black: "Black" };
const STEP_PX = 48;
const EDGE_SIDE_PX = 1024;

function element(tag, properties = {}, children = []) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

class Compare {
  constructor(parent) {
    this.group = `g${Math.random().toString(36).slice(2)}`;
    this.before = element("img", { draggable: false });
    this.after = element("img", { draggable: false });
    this.alpha = element("img", { draggable: false });
    this.slider = element("input", { type: "range", min: 0, max: 100, step: 1, value: 50 });
    this.slider.setAttribute("aria-label", "Position of the divider");
    this.tags = ["Original", "Result"].map((text) => element("span", { className: "tag", textContent: text }));
    this.beforeLayer = element("div", { className: "layer before" }, [this.before, this.tags[0]]);
    this.afterLayer = element("div", { className: "layer after" }, [this.after, this.tags[1]]);
    this.alphaLayer = element("div", { className: "layer alpha" }, [this.alpha]);
    this.message = element("p", { className: "message", role: "status" });
    this.stage = element("div", { className: "stage" }, [
      this.afterLayer, this.beforeLayer, this.alphaLayer,
      element("div", { className: "line" }), this.slider, this.message,
    ]);
    this.bar = this.controls();
    this.root = element("div", { className: "root" }, [this.bar, this.stage]);
    parent.append(this.root);
    this.set("view", "compare");
    this.set("zoom", "fit");
    this.set("background", "checkerboard");
    this.listen();
  }

  controls() {
    const color = element("input", { type: "color", value: "#2f7dd1", title: "Color", "aria-label": "Background color" });
    const choose = () => {
      this.root.style.setProperty("--chosen", color.value);
      this.set("background", "color");
    };
    color.addEventListener("input", choose);
    color.addEventListener("click", choose);
    const swatches = Object.entries(BACKGROUNDS).map(([value, text]) => this.option("background", value, text));
    this.backgrounds = element("div", { className: "set swatches", role: "radiogroup", "aria-label": "Background" }, [
      ...swatches, color,
    ]);
    const views = { compare: "Compare", result: "Result", alpha: "Alpha" };
    const zooms = { fit: "Fit", full: "100 %" };
    const groups = [["view", "View", views], ["zoom", "Zoom", zooms]].map(([name, label, values]) =>
      element("div", { className: `set ${name}s`, role: "radiogroup", "aria-label": label },
        Object.entries(values).map(([value, text]) => this.option(name, value, text))));
    return element("div", { className: "bar" }, [groups[0], this.backgrounds, groups[1]]);
  }

  option(name, value, text) {
    const input = element("input", { type: "radio", name: `${this.group}${name}`, value });
    input.addEventListener("change", () => this.set(name, value));
    return element("label", { className: `option ${value}`, title: text }, [input, element("span", { textContent: text })]);
  }

  // Changes the view, the zoom or the background.
  set(name, value) {
    this[name] = value;
    this.root?.setAttribute(`data-${name}`, value);
    const input = this.bar.querySelector(`input[name="${this.group}${name}"][value="${value}"]`);
    if (input) input.checked = true;
    else for (const other of this.bar.querySelectorAll(`input[name="${this.group}${name}"]`)) other.checked = false;
    if (name === "background" && this.view === "alpha") this.set("view", "result");
    if (name === "view") {
      this.message.textContent = "";
      if (value === "alpha") this.showAlpha();
    }
    if (name === "zoom" && value === "full") this.center(this.edge());
    this.arrange();
  }

  load(data) {
    const known = JSON.stringify(data);
    if (known === this.known) return;
    this.known = known;
    this.data = data;
    this.place = null;
    this.alpha.removeAttribute("src");
    this.root.classList.add("loading");
    this.root.dataset.alpha = ["own", "itself"].includes(data.alpha) ? data.alpha : "object";
    this.before.alt = `Original: ${data.name}`;
    this.after.alt = `Result: ${data.name}`;
    this.alpha.alt = `Alpha: ${data.name}`;
    this.before.src = data.before;
    this.after.src = data.after;
    this.slider.value = 50;
    this.set("zoom", "fit");
    if (this.view === "alpha") this.set("view", "compare");
  }

  unload() {
    this.observer.disconnect();
    views.delete(this.root.parentNode);
    this.root.remove();
  }

  listen() {
    this.slider.addEventListener("input", () => this.arrange());
    for (const image of [this.before, this.after, this.alpha]) {
      image.addEventListener("load", () => this.loaded());
      image.addEventListener("error", () => this.failed(image));
    }
    this.observer = new ResizeObserver(() => this.arrange());
    this.observer.observe(this.root);
    this.stage.addEventListener("pointerdown", (event) => this.drag(event));
    this.stage.addEventListener("wheel", (event) => this.scroll(event), { passive: false });
    this.stage.addEventListener("keydown", (event) => this.key(event));
    this.stage.addEventListener("dblclick", (event) => this.enlarge(event));
  }

  loaded() {
    if (!this.after.naturalWidth || !this.before.naturalWidth) return;
    this.root.classList.remove("loading");
    const [shape, other] = [this.after, this.before].map((one) => one.naturalWidth / one.naturalHeight);
    const close = Math.abs(shape / other - 1) < 0.01;
    this.root.toggleAttribute("data-apart", !(this.data.aligned && close));
    this.arrange();
  }

  failed(image) {
    if (!image.getAttribute("src")) return;
    this.root.classList.remove("loading");
    this.message.textContent = image === this.alpha
      ? "The alpha is no longer stored. Process the image again to see it."
      : "The picture cannot be shown.";
  }

  get apart() {
    return this.root.hasAttribute("data-apart") && this.view === "compare";
  }

  // The picture that decides the size: the result, or the alpha where it is a picture of its own.
  get shown() {
    const own = this.view === "alpha" && this.root.dataset.alpha === "object";
    return own && this.alpha.naturalWidth ? this.alpha : this.after;
  }

  arrange() {
    if (!this.observer || !this.root.clientWidth) return;
    this.tags[0].hidden = this.tags[1].hidden = this.view !== "compare";
    this.slider.hidden = this.view !== "compare" || this.apart;
    this.root.toggleAttribute("data-pair", this.apart);
    for (const one of this.bar.querySelectorAll(".zooms input")) one.disabled = this.apart;
    if (this.apart || !this.shown.naturalWidth) return this.release();
    const { naturalWidth: width, naturalHeight: height } = this.shown;
    const room = this.root.clientWidth;
    const most = Math.max(260, Math.min(window.innerHeight * 0.6, 760));
    const fit = Math.min(room / width, most / height, Math.max(1, Math.min(2, 320 / width)));
    const scale = this.zoom === "full" ? Math.max(1, fit > 0.95 ? 2 : 1) : fit;
    this.bar.querySelector(".option.full span").textContent = fit > 0.95 ? "200 %" : "100 %";
    const stage = this.zoom === "full"
      ? { width: Math.min(room, width * scale), height: Math.min(Math.max(most * 0.8, height * fit), height * scale) }
      : { width: width * fit, height: height * fit };
    Object.assign(this, { scale, size: stage });
    this.stage.style.width = `${stage.width}px`;
    this.stage.style.height = `${stage.height}px`;
    const point = this.zoom === "full" && this.place ? this.place : { x: 0.5, y: 0.5 };
    const left = this.within(stage.width / 2 - point.x * width * scale, stage.width, width * scale);
    const top = this.within(stage.height / 2 - point.y * height * scale, stage.height, height * scale);
    for (const image of [this.before, this.after, this.alpha]) {
      image.style.width = `${width * scale}px`;
      image.style.height = `${height * scale}px`;
      image.style.transform = `translate(${left}px, ${top}px)`;
    }
    this.stage.style.setProperty("--split", `${this.slider.value}%`);
    this.slider.setAttribute("aria-valuetext", `${this.slider.value} % original`);
    this.focusable(this.zoom === "full");
  }

  // Lets the style sheet size the pictures.
  release() {
    for (const one of [this.before, this.after, this.alpha, this.stage]) one.removeAttribute("style");
    this.focusable(false);
  }

  focusable(can) {
    if (can) {
      this.stage.tabIndex = 0;
      this.stage.setAttribute("role", "group");
      this.stage.setAttribute("aria-label", "Enlarged picture. The arrow keys move it.");
    } else {
      for (const name of ["tabindex", "role", "aria-label"]) this.stage.removeAttribute(name);
    }
  }

  within(offset, room, length) {
    return Math.min(0, Math.max(room - length, offset));
  }

  // Moves the enlarged picture; returns whether it moved.
  pan(across, down) {
    const { naturalWidth: width, naturalHeight: height } = this.shown;
    const point = this.place ?? { x: 0.5, y: 0.5 };
    const halfX = Math.min(0.5, this.size.width / 2 / (width * this.scale));
    const halfY = Math.min(0.5, this.size.height / 2 / (height * this.scale));
    const held = { x: Math.min(1 - halfX, Math.max(halfX, point.x)), y: Math.min(1 - halfY, Math.max(halfY, point.y)) };
    const next = {
      x: Math.min(1 - halfX, Math.max(halfX, held.x - across / (width * this.scale))),
      y: Math.min(1 - halfY, Math.max(halfY, held.y - down / (height * this.scale))),
    };
    const moved = next.x !== held.x || next.y !== held.y;
    this.place = next;
    this.arrange();
    return moved;
  }

  center(point) {
    this.place = point;
  }

  drag(event) {
    if (event.button !== 0 || event.target === this.slider || this.apart) return;
    const zoomed = this.zoom === "full";
    if (!zoomed && this.view !== "compare") return;
    event.preventDefault();
    this.stage.setPointerCapture(event.pointerId);
    let last = event;
    const slide = (to) => {
      const box = this.stage.getBoundingClientRect();
      this.slider.value = Math.round(((to.clientX - box.left) / box.width) * 100);
      this.arrange();
    };
    const move = (to) => {
      if (zoomed) this.pan(to.clientX - last.clientX, to.clientY - last.clientY);
      else slide(to);
      last = to;
    };
    if (!zoomed) {
      slide(event);
      this.slider.focus({ preventScroll: true });
    } else this.stage.focus({ preventScroll: true });
    const end = () => {
      this.stage.removeEventListener("pointermove", move);
      this.stage.classList.remove("held");
    };
    this.stage.classList.add("held");
    this.stage.addEventListener("pointermove", move);
    this.stage.addEventListener("pointerup", end, { once: true });
    this.stage.addEventListener("pointercancel", end, { once: true });
  }

  scroll(event) {
    if (this.zoom !== "full" || this.apart || event.ctrlKey) return;
    if (this.pan(-event.deltaX, -event.deltaY)) event.preventDefault();
  }

  key(event) {
    if (this.zoom !== "full" || event.target === this.slider) return;
    const steps = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    this.pan(step[0] * STEP_PX, step[1] * STEP_PX);
  }

  enlarge(event) {
    if (this.apart || event.target === this.slider) return;
    if (this.zoom === "full") return this.set("zoom", "fit");
    const box = this.stage.getBoundingClientRect();
    this.set("zoom", "full");
    this.center({ x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height });
    this.arrange();
  }

  showAlpha() {
    if (this.root.dataset.alpha === "object" && !this.alpha.getAttribute("src")) this.alpha.src = this.data.alpha;
  }

  // Returns the place with most of the alpha's edge, as shares of width and height.
  edge() {
    const own = this.root.dataset.alpha === "own";
    const image = own || !this.alpha.naturalWidth ? this.after : this.alpha;
    if (!image.naturalWidth) return null;
    const factor = Math.min(1, EDGE_SIDE_PX / Math.max(image.naturalWidth, image.naturalHeight));
    const width = Math.max(1, Math.round(image.naturalWidth * factor));
    const height = Math.max(1, Math.round(image.naturalHeight * factor));
    const canvas = element("canvas", { width, height });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0, width, height);
    const pixels = context.getImageData(0, 0, width, height).data;
    const channel = own ? 3 : 0;
    const sums = new Float64Array((width + 1) * (height + 1));
    for (let y = 0; y < height; y++) {
      let row = 0;
      for (let x = 0; x < width; x++) {
        const value = pixels[4 * (y * width + x) + channel];
        row += value * (255 - value);
        sums[(y + 1) * (width + 1) + x + 1] = sums[y * (width + 1) + x + 1] + row;
      }
    }
    return densest(sums, width, height, this.root.clientWidth * factor, window.innerHeight * 0.5 * factor);
  }
}

// Returns the center of the window with the largest sum, as shares of width and height; null if all sums are zero.
function densest(sums, width, height, wide, high) {
  const across = Math.max(1, Math.min(width, Math.round(wide)));
  const down = Math.max(1, Math.min(height, Math.round(high)));
  let best = 0;
  let place = null;
  for (let y = 0; y + down <= height; y += Math.max(1, down >> 3)) {
    for (let x = 0; x + across <= width; x += Math.max(1, across >> 3)) {
      const at = (px, py) => sums[py * (width + 1) + px];
      const sum = at(x + across, y + down) - at(x, y + down) - at(x + across, y) + at(x, y);
      if (sum > best) {
        best = sum;
        place = { x: (x + across / 2) / width, y: (y + down / 2) / height };
      }
    }
  }
  return place;
}
