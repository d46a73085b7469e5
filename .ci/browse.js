// What is wrong with the page as it is shown, evaluated by browse.py: a list of lines, and the height of the page.
(() => {
  const found = [];
  const ancestors = (e) => (e ? [e, ...ancestors(e.parentElement)] : []);
  const name = (e) => [e.tagName.toLowerCase(), ...e.classList].join(".");
  const start = (text) => text.trim().slice(0, 40).replace(/\s+/g, " ");
  const right = (e) => Math.round(e.getBoundingClientRect().right);
  const seen = (e) =>
    e.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && e.getBoundingClientRect().width > 1;

  // Width: neither the page nor an element that does not scroll by itself; words may be wider than theirs, see below.
  const width = document.documentElement.scrollWidth;
  if (width > innerWidth) found.push(`the page is ${width} wide`);
  const cut = (e) => seen(e) && !e.closest("pre, table, .math-display") && right(e) > innerWidth + 1;
  for (const e of document.querySelectorAll("main *"))
    if (cut(e) && !cut(e.parentElement)) found.push(`${name(e)} ends at ${right(e)}: ${start(e.textContent)}`);

  for (const e of document.querySelectorAll("img:not([alt])")) found.push(`no alternative text: ${e.src}`);

  // Contrast, https://www.w3.org/TR/WCAG22/#contrast-minimum; colors are [red, green, blue, opacity].
  const color = (text) => {
    const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number);
    return text.startsWith("color(") ? [255 * r, 255 * g, 255 * b, a] : [r, g, b, a];
  };
  const over = (a, b) => [...[0, 1, 2].map((i) => a[i] * a[3] + b[i] * (1 - a[3])), 1];
  const linear = (v) => (v <= 10 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const contrast = (a, b) => {
    const [low, high] = [luminance(a), luminance(b)].sort((p, q) => p - q);
    return (high + 0.05) / (low + 0.05);
  };
  const faint = new Set();
  const words = document.createRange();
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const e = texts.currentNode.parentElement;
    const text = start(texts.currentNode.textContent);
    if (!text || !seen(e)) continue;
    words.selectNode(texts.currentNode);
    const styles = ancestors(e).map((n) => getComputedStyle(n));
    const shortened = styles.some((s) => s.textOverflow == "ellipsis") || e.closest("pre, table, .math-display");
    if (e.closest("main") && !shortened && right(words) > innerWidth + 1) found.push(`words end at ${right(words)}: ${text}`);
    const ground = styles.reduceRight((below, s) => over(color(s.backgroundColor), below), [255, 255, 255, 1]);
    const [r, g, b, a] = color(styles[0].color);
    const has = contrast(over([r, g, b, styles.reduce((o, s) => o * s.opacity, a)], ground), ground);
    const size = parseFloat(styles[0].fontSize);
    const large = size >= 24 || (size >= 18.66 && styles[0].fontWeight >= 700);
    if (has < (large ? 3 : 4.5)) faint.add(`contrast ${has.toFixed(2)}: ${name(e)}: ${text}`);
  }
  return JSON.stringify({ found: [...found, ...faint], height: document.documentElement.scrollHeight });
})();
