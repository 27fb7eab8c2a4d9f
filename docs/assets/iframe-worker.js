/* Lets the search run when the site is opened from disk, where browsers start no worker from a file: the worker's
   script runs in a hidden frame, and messages are passed by hand. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(script) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      this.ready = new Promise((resolve) => frame.addEventListener("load", resolve, { once: true }))
      this.ready = this.ready.then(() => this.begin(frame.contentWindow, String(script)))
      const add = () => document.body.append(frame)
      document.body ? add() : addEventListener("DOMContentLoaded", add, { once: true })
    }

    begin(inside, script) {
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }))
      inside.importScripts = (...urls) => urls.reduce((before, url) => before.then(() => load(inside, url)), Promise.resolve())
      return load(inside, script).then(() => inside)
    }

    postMessage(data) {
      this.ready.then((inside) => inside.dispatchEvent(new inside.MessageEvent("message", { data })))
    }

    terminate() {}
  }

  const load = (inside, url) =>
    new Promise((resolve, reject) => {
      const element = inside.document.createElement("script")
      element.src = new URL(url, location.href)
      element.onload = resolve
      element.onerror = reject
      inside.document.head.append(element)
    })
}
