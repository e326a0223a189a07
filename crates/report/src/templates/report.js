// Behaviour of the report: single out a policy in the charts, switch panels, draw and move timelines. No requests, no storage.
'use strict';
document.documentElement.classList.add('js');

for (const section of document.querySelectorAll('.policy-charts')) {
  const light = number => {
    section.classList.toggle('dim', number !== null);
    for (const line of section.querySelectorAll('.series')) line.classList.toggle('lit', line.dataset.series === number);
  };
  for (const item of section.querySelectorAll('.legend li')) {
    item.addEventListener('mouseenter', () => light(item.dataset.series));
    item.addEventListener('focus', () => light(item.dataset.series));
    item.addEventListener('mouseleave', () => light(null));
    item.addEventListener('blur', () => light(null));
  }
}

const duration = ns => ns === 0 ? '0 ms' : ns < 1e6 ? (ns / 1e3).toFixed(1) + ' µs' : ns < 1e9 ? (ns / 1e6).toFixed(2) + ' ms' : (ns / 1e9).toFixed(3) + ' s';
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

class Timeline {
  // Columns of a slice, of a job and of a mark: see `timeline_data` in html.rs.
  constructor(root, data) {
    this.root = root; this.data = data;
    this.canvas = root.querySelector('canvas'); this.tip = root.querySelector('.tip');
    this.colourBy = 'model';
    this.select(0);
    this.listen();
  }

  select(policy) {
    this.policy = this.data.policies[policy];
    const length = this.policy.to - this.policy.from;
    const keep = this.a !== undefined && this.a < this.policy.to;
    // The first look is at a readable stretch, not at the whole window; switching policies keeps the place.
    if (!keep) { this.a = this.policy.from; this.b = this.policy.from + Math.min(length, this.data.first); }
    this.root.querySelector('[data-note]').textContent = this.policy.note;
    this.keys(); this.draw();
  }

  colour(slice) { return this.data.palette[(this.colourBy === 'model' ? this.data.nodes[slice[4]][2] : this.data.nodes[slice[4]][1]) % this.data.palette.length]; }

  keys() {
    const box = this.root.querySelector('.keys');
    const column = this.colourBy === 'model' ? 2 : 1;
    const names = this.colourBy === 'model' ? this.data.models : this.data.sources;
    const used = new Set(this.policy.slices.map(s => this.data.nodes[s[4]][column]));
    box.replaceChildren(...[...used].sort((a, b) => a - b).map(i => {
      const key = document.createElement('span'), chip = document.createElement('i');
      chip.style.background = this.data.palette[i % this.data.palette.length];
      key.append(chip, names[i]);
      return key;
    }));
    for (const [mark, text] of [['setup', 'setup'], ['miss', 'deadline or goal missed'], ['drop', 'job dropped']]) {
      const key = document.createElement('span'), chip = document.createElement('i');
      chip.className = mark; chip.textContent = { setup: '', miss: '✕', drop: '▽' }[mark];
      key.append(chip, text); box.append(key);
    }
  }

  get names() { return this.data.lanes.concat(this.data.sources); }

  layout() {
    const width = this.canvas.clientWidth || 900;
    const left = Math.min(150, 24 + 7 * Math.max(...this.names.map(n => n.length)));
    const lane = 34, strip = 19, top = 24;
    const strips = top + lane * this.data.lanes.length + 24;
    return { width, left, lane, strip, top, strips, bottom: strips + strip * this.data.sources.length, height: strips + strip * this.data.sources.length + 24 };
  }

  x(t) { return this.l.left + (t - this.a) / (this.b - this.a) * (this.l.width - this.l.left - 8); }
  t(x) { return this.a + (x - this.l.left) / (this.l.width - this.l.left - 8) * (this.b - this.a); }

  draw() {
    const l = this.l = this.layout(), ratio = window.devicePixelRatio || 1;
    this.canvas.style.height = l.height + 'px';
    this.canvas.width = Math.round(l.width * ratio); this.canvas.height = Math.round(l.height * ratio);
    const g = this.g = this.canvas.getContext('2d');
    g.scale(ratio, ratio);
    g.clearRect(0, 0, l.width, l.height);
    g.textBaseline = 'middle';
    this.axis(); this.lanes(); this.strips();
    this.root.querySelector('.where').textContent = duration(this.a) + ' – ' + duration(this.b);
  }

  fit(text, width) {
    if (this.g.measureText(text).width <= width) return text;
    while (text.length > 1 && this.g.measureText(text + '…').width > width) text = text.slice(0, -1);
    return text.length > 1 ? text + '…' : '';
  }

  axis() {
    const { g, l } = this;
    const rough = (this.b - this.a) / Math.max(3, (l.width - l.left) / 95), power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map(m => m * power).find(s => s >= rough);
    const digits = Math.max(0, Math.ceil(6 - Math.log10(step) - 1e-9));
    g.font = '11px ' + css('--sans'); g.textAlign = 'center'; g.fillStyle = css('--soft');
    g.strokeStyle = css('--line'); g.lineWidth = 1; g.beginPath();
    for (let t = Math.ceil(this.a / step) * step; t <= this.b; t += step) {
      const x = Math.round(this.x(t)) + .5;
      g.moveTo(x, l.top - 6); g.lineTo(x, l.bottom);
      if (x < l.width - 22) g.fillText((t / 1e6).toFixed(digits), x, 9);
    }
    g.stroke();
    g.fillText('simulated time [ms]', (l.left + l.width) / 2, l.bottom + 14);
  }

  lanes() {
    const { g, l } = this;
    g.font = '12px ' + css('--sans');
    this.data.lanes.forEach((name, i) => {
      const y = l.top + i * l.lane;
      g.fillStyle = css('--lane'); g.fillRect(l.left, y + 2, l.width - l.left - 8, l.lane - 4);
      g.fillStyle = css('--ink'); g.textAlign = 'right'; g.fillText(this.fit(name, l.left - 14), l.left - 9, y + l.lane / 2);
    });
    g.save(); g.beginPath(); g.rect(l.left, 0, l.width - l.left - 8, l.height); g.clip();
    g.textAlign = 'left'; g.font = '11px ' + css('--sans');
    for (const s of this.policy.slices) {
      if (s[1] + s[3] < this.a || s[1] > this.b) continue;
      const x = this.x(s[1]), ready = this.x(s[1] + s[2]), end = Math.max(this.x(s[1] + s[3]), x + .7), y = l.top + s[0] * l.lane + 4, h = l.lane - 8;
      g.fillStyle = this.colour(s); g.fillRect(x, y, end - x, h);
      if (ready - x > 1) this.hatch(x, y, ready - x, h);
      if (end - x > 3) { g.strokeStyle = css('--card'); g.lineWidth = 1; g.strokeRect(x + .5, y + .5, end - x - 1, h - 1); }
      const from = Math.max(ready, l.left), room = Math.min(end, l.width - 8) - from - 8;
      if (room > 18) { g.fillStyle = this.data.inks[this.data.palette.indexOf(this.colour(s))]; g.fillText(this.fit(this.data.nodes[s[4]][0] + (s[8] > 1 ? ' ×' + s[8] : ''), room), from + 4, y + h / 2 + .5); }
      if (this.late(s) && end - x > 2) this.cross(Math.min(end, l.width - 8) - 7, y + 7, true);
    }
    g.restore();
  }

  // Whether the slice is the last of a job that missed a deadline or goal.
  late(s) { return this.policy.late.has(s[5]) && this.policy.last.get(s[5]) === s; }

  hatch(x, y, w, h) {
    const { g } = this;
    g.save(); g.beginPath(); g.rect(x, y, w, h); g.clip(); g.fillStyle = '#fff'; g.fillRect(x, y, w, h);
    g.strokeStyle = '#555'; g.lineWidth = 2; g.beginPath();
    for (let d = Math.max(-h, -h); d < w; d += 6) { g.moveTo(x + d, y + h); g.lineTo(x + d + h, y); }
    g.stroke(); g.restore();
  }

  cross(x, y, halo) {
    const { g } = this;
    const path = () => { g.beginPath(); g.moveTo(x - 4, y - 4); g.lineTo(x + 4, y + 4); g.moveTo(x - 4, y + 4); g.lineTo(x + 4, y - 4); g.stroke(); };
    g.lineCap = 'round';
    if (halo) { g.strokeStyle = '#fff'; g.lineWidth = 5; path(); }
    g.strokeStyle = '#d4001a'; g.lineWidth = 2.2; path();
  }

  strips() {
    const { g, l } = this;
    g.fillStyle = css('--soft'); g.textAlign = 'left'; g.font = '11px ' + css('--sans');
    g.fillText('jobs, from release to completion; tick: deadline', l.left, l.strips - 9);
    g.font = '12px ' + css('--sans');
    this.data.sources.forEach((name, i) => {
      g.fillStyle = css('--ink'); g.textAlign = 'right'; g.fillText(this.fit(name, l.left - 14), l.left - 9, l.strips + i * l.strip + l.strip / 2);
    });
    g.save(); g.beginPath(); g.rect(l.left, 0, l.width - l.left - 8, l.height); g.clip();
    const ink = css('--soft');
    for (const [source, release, length, deadline] of this.policy.jobs) {
      if (release + Math.max(length, deadline) < this.a || release > this.b) continue;
      const x = this.x(release), w = Math.max(1, this.x(release + length) - x), y = l.strips + source * l.strip;
      g.globalAlpha = .45; g.fillStyle = ink; g.fillRect(x, y + 6, w, 7); g.globalAlpha = 1;
      if (w > 4) { g.strokeStyle = ink; g.lineWidth = 1; g.strokeRect(x + .5, y + 6.5, w - 1, 6); }
      if (deadline > 0) { g.fillStyle = css('--ink'); g.fillRect(this.x(release + deadline) - .5, y + 3, 1, 13); }
    }
    for (const [at, source, kind] of this.policy.marks) {
      if (at < this.a || at > this.b) continue;
      const x = this.x(at), y = l.strips + source * l.strip + 9.5;
      if (kind < 3) this.cross(x, y, false);
      else { g.beginPath(); g.moveTo(x - 5, y - 4); g.lineTo(x + 5, y - 4); g.lineTo(x, y + 5); g.closePath(); g.fillStyle = css('--card'); g.fill(); g.strokeStyle = css('--ink'); g.lineWidth = 1.5; g.stroke(); }
    }
    g.restore();
  }

  move(a, b) {
    const { from, to } = this.policy, length = Math.min(Math.max(b - a, 2000), to - from);
    a = Math.min(Math.max(a, from), to - length);
    this.a = a; this.b = a + length;
    this.draw();
  }
  zoom(factor, at) { this.move(at - (at - this.a) * factor, at + (this.b - at) * factor); }
  shift(share) { const d = (this.b - this.a) * share; this.move(this.a + d, this.b + d); }

  nextMiss() {
    const middle = (this.a + this.b) / 2, length = this.b - this.a;
    const next = this.policy.marks.find(m => m[0] > middle + length * .01) || this.policy.marks[0];
    if (next) this.move(next[0] - length / 2, next[0] + length / 2);
  }

  under(x, y) {
    const l = this.l, t = this.t(x);
    if (x < l.left) return '';
    const mark = this.policy.marks.find(m => Math.abs(this.x(m[0]) - x) < 6 && Math.abs(l.strips + m[1] * l.strip + 9.5 - y) < 9);
    if (mark) return this.data.sources[mark[1]] + ', job ' + mark[3] + '\n' + this.data.marks[mark[2]] + ' at ' + duration(mark[0]);
    const lane = Math.floor((y - l.top) / l.lane);
    const s = this.policy.slices.find(s => s[0] === lane && s[1] <= t && t <= s[1] + s[3]);
    if (s) {
      const [stage, source, model] = this.data.nodes[s[4]];
      return this.data.sources[source] + ' / ' + stage + ', job ' + s[5] + '\n' + this.data.models[model] + ', ' + this.data.phases[s[6]] +
        (s[8] > 1 ? ', batch of ' + s[8] : '') + (s[9] ? ', ' + s[9] + ' tokens' : '') + '\n' + duration(s[3]) + (s[2] ? ' (setup ' + duration(s[2]) + ')' : '') +
        ' from ' + duration(s[1]) + '\n' + this.data.whys[s[7]];
    }
    const row = Math.floor((y - l.strips) / l.strip);
    const job = this.policy.jobs.find(j => j[0] === row && j[1] <= t && t <= j[1] + j[2]);
    return job ? this.data.sources[row] + ', job ' + job[4] + '\n' + this.data.outcomes[job[5]] + ', ' + duration(job[2]) + ' after release' + (job[3] ? '\ndeadline after ' + duration(job[3]) : '') : '';
  }

  listen() {
    const canvas = this.canvas;
    let drag = null;
    const act = { in: () => this.zoom(.5, (this.a + this.b) / 2), out: () => this.zoom(2, (this.a + this.b) / 2), left: () => this.shift(-.3), right: () => this.shift(.3), all: () => this.move(this.policy.from, this.policy.to), miss: () => this.nextMiss() };
    for (const button of this.root.querySelectorAll('button[data-do]')) button.addEventListener('click', act[button.dataset.do]);
    this.root.querySelector('select').addEventListener('change', e => { this.colourBy = e.target.value; this.keys(); this.draw(); });
    canvas.addEventListener('wheel', e => {
      e.preventDefault();
      if (Math.abs(e.deltaX) > Math.abs(e.deltaY)) this.shift(e.deltaX / this.l.width); else this.zoom(Math.exp(e.deltaY * .0016), this.t(e.offsetX));
    }, { passive: false });
    canvas.addEventListener('pointerdown', e => { drag = { x: e.clientX, a: this.a, b: this.b }; canvas.setPointerCapture(e.pointerId); canvas.classList.add('drag'); });
    canvas.addEventListener('pointerup', () => { drag = null; canvas.classList.remove('drag'); });
    canvas.addEventListener('pointercancel', () => { drag = null; canvas.classList.remove('drag'); });
    canvas.addEventListener('pointermove', e => {
      if (drag) { const d = (drag.x - e.clientX) / (this.l.width - this.l.left - 8) * (drag.b - drag.a); this.move(drag.a + d, drag.b + d); }
      const text = drag ? '' : this.under(e.offsetX, e.offsetY);
      this.tip.hidden = !text; this.tip.textContent = text;
      this.tip.style.left = Math.min(e.offsetX + 14, this.l.width - 300) + 'px'; this.tip.style.top = e.offsetY + canvas.offsetTop + 16 + 'px';
    });
    canvas.addEventListener('pointerleave', () => { this.tip.hidden = true; });
    canvas.addEventListener('keydown', e => {
      const keys = { ArrowLeft: act.left, ArrowRight: act.right, '+': act.in, '=': act.in, '-': act.out, '0': act.all, n: act.miss };
      if (keys[e.key] && !e.ctrlKey && !e.metaKey) { e.preventDefault(); keys[e.key](); }
    });
    new ResizeObserver(() => this.draw()).observe(this.root);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.draw());
  }
}

for (const section of document.querySelectorAll('[data-inside]')) {
  const id = section.dataset.inside, holder = section.querySelector('[data-timeline]');
  let timeline = null;
  if (holder) {
    const data = JSON.parse(document.getElementById(id + '-data').textContent);
    for (const p of data.policies) {
      p.late = new Set(p.marks.filter(m => m[2] < 3).map(m => m[3]));
      p.last = new Map(p.slices.map(s => [s[5], s]));
    }
    timeline = new Timeline(holder, data);
  }
  const tabs = [...section.querySelectorAll('[data-tab]')];
  for (const tab of tabs) tab.addEventListener('click', () => {
    for (const other of tabs) other.setAttribute('aria-pressed', String(other === tab));
    for (const panel of section.querySelectorAll('[data-panel]')) panel.classList.toggle('other', panel.dataset.panel !== tab.dataset.tab);
    const name = section.querySelector('[data-policy-name]');
    if (name) name.textContent = tab.textContent;
    const index = timeline ? timeline.data.policies.findIndex(p => p.name === tab.textContent) : -1;
    if (holder) holder.style.visibility = index < 0 ? 'hidden' : '';
    if (index >= 0) timeline.select(index);
  });
}
