const ZOOM = 4
const MAP_PX = 192 // size at which the most uncertain place is looked for
const WINDOW = 24
const ahead = new Map() // pictures of the next cut-outs, so that the browser has them decoded

/** Where most pixels are neither subject nor background, as shares of width and height; null without transparency. */
function worstPlace(image) {
  const scale = MAP_PX / Math.max(image.naturalWidth, image.naturalHeight)
  const width = Math.max(1, Math.round(image.naturalWidth * scale))
  const height = Math.max(1, Math.round(image.naturalHeight * scale))
  const canvas = new OffscreenCanvas(width, height)
  const context = canvas.getContext("2d", { willReadFrequently: true })
  context.drawImage(image, 0, 0, width, height)
  const pixels = context.getImageData(0, 0, width, height).data
  const sums = new Float32Array((width + 1) * (height + 1)) // of uncertainty, from the corner
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const alpha = pixels[(y * width + x) * 4 + 3] / 255
      const above = y * (width + 1) + x
      sums[above + width + 2] = alpha * (1 - alpha) + sums[above + 1] + sums[above + width + 1] - sums[above]
    }
  }
  let worst = 0.1
  let place = null
  const across = Math.min(WINDOW, width)
  const down = Math.min(WINDOW, height)
  for (let y = 0; y + down <= height; y += 4) {
    for (let x = 0; x + across <= width; x += 4) {
      const top = y * (width + 1) + x
      const bottom = top + down * (width + 1)
      const sum = sums[bottom + across] - sums[bottom] - sums[top + across] + sums[top]
      if (sum > worst) {
        worst = sum
        place = [(x + across / 2) / width, (y + down / 2) / height]
      }
    }
  }
  return place
}

function zoomTo(images, place) {
  for (const image of images) {
    image.style.transformOrigin = place ? `${place[0] * 100}% ${place[1] * 100}%` : ""
    image.style.transform = place ? `scale(${ZOOM})` : ""
  }
}

export default function ({ data, parentElement, setTriggerValue }) {
  const panes = parentElement.querySelector(".panes")
  const [source, result] = [parentElement.querySelector(".source"), parentElement.querySelector(".result")]
  const together = data.same_geometry ? [source, result] : [result]
  result.parentElement.className = `pane ${data.background}`

  const place = () => (result.naturalWidth && worstPlace(result)) || [0.5, 0.5]
  const show = () => {
    panes.classList.toggle("wide", source.naturalWidth > source.naturalHeight)
    panes.classList.toggle("zoomed", data.zoom)
    zoomTo([source, result], null)
    if (data.zoom && result.complete) zoomTo(together, place())
  }
  for (const [image, facts] of [[source, data.source], [result, data.result]]) {
    image.alt = facts.alt
    image.onerror = () => image.classList.replace("loading", "missing")
    image.onload = () => { image.classList.remove("loading", "missing"); show() }
    if (image.getAttribute("src") !== facts.src) {
      image.classList.remove("missing")
      image.classList.add("loading") // the previous picture would stay until this one has loaded
      image.src = facts.src
    }
    image.onclick = () => setTriggerValue("zoomed", !data.zoom)
    image.onpointermove = (event) => {
      if (!data.zoom || !together.includes(image)) return
      const box = image.parentElement.getBoundingClientRect()
      zoomTo(together, [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height])
    }
  }
  show()

  const strip = parentElement.querySelector(".strip")
  strip.replaceChildren(...data.next.map((facts) => {
    const button = document.createElement("button")
    const thumbnail = document.createElement("img")
    const label = document.createElement("span")
    thumbnail.src = facts.src
    thumbnail.alt = facts.alt
    label.textContent = facts.label
    button.append(thumbnail, label)
    button.disabled = facts.waits
    button.onclick = () => setTriggerValue("chosen", facts.id)
    return button
  }))

  Promise.allSettled([source.decode(), result.decode()]).then(() => {
    for (const address of data.prefetch) {
      if (ahead.has(address)) continue
      const image = new Image()
      image.src = address
      ahead.set(address, image)
      image.decode().catch(() => {})
    }
    for (const address of [...ahead.keys()].slice(0, -12)) ahead.delete(address)
  })
}
