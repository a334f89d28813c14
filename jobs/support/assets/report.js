/* The plots, switches and sorted tables of the report of an evaluation. */
const reportPage = (() => {
  'use strict';

  const SHAPES = ['circle', 'rect', 'triangle', 'rectRot', 'star', 'crossRot', 'rectRounded', 'cross'];
  const SIGNS = ['\u25CF', '\u25A0', '\u25B2', '\u25C6', '\u2736', '\u2715', '\u25A2', '\u271A'];
  const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];
  const HOUR_STEPS = [1, 2, 3, 4, 6, 12, 24, 48, 96, 168, 336, 720];
  const FEW_HOURS = 6;
  const ROOM_FOR_A_POINT = 12;
  const NARROW = 500;

  const data = JSON.parse(document.getElementById('report-data').textContent);
  const lines = Object.fromEntries(
    ['board', 'history', 'hourly', 'segments', 'calibration'].map((name) => [name, unpacked(data[name])]),
  );
  const choice = { label: data.labels[0], dimension: undefined, role: undefined };
  const figures = [];

  function unpacked({ fields, rows }) {
    return rows.map((row) => Object.fromEntries(fields.map((field, i) => [field, row[i]])));
  }

  /* Values as texts; what is not known is "-". */

  function known(value) {
    return value !== null && value !== undefined;
  }

  function fixed(value) {
    return known(value) ? value.toFixed(4) : '-';
  }

  function signed(value) {
    return known(value) ? (value < 0 ? '' : '+') + value.toFixed(4) : '-';
  }

  function whole(value) {
    return known(value) ? value.toLocaleString('en') : '-';
  }

  function probability(value) {
    if (!known(value)) return '-';
    return value < 0.001 ? '<0.001' : value.toFixed(3);
  }

  function interval(low, high, shown = fixed) {
    return known(low) && known(high) ? `[${shown(low)}, ${shown(high)}]` : '';
  }

  /* Colours and shapes: a role has the same ones everywhere. */

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  }

  function place(role) {
    return Math.max(0, data.roles.indexOf(role));
  }

  function roleColour(role) {
    return colour(`role-${place(role) % SHAPES.length}`);
  }

  /* When the colours begin again, they come with other shapes. */
  function shapeNumber(role) {
    return (place(role) + 3 * Math.floor(place(role) / SHAPES.length)) % SHAPES.length;
  }

  function roleShape(role) {
    return SHAPES[shapeNumber(role)];
  }

  function faded(hex, alpha) {
    const number = parseInt(hex.slice(1).replace(/^(.)(.)(.)$/, '$1$1$2$2$3$3'), 16);
    return `rgba(${number >> 16}, ${(number >> 8) & 255}, ${number & 255}, ${alpha})`;
  }

  function dataset(role, more) {
    const own = roleColour(role);
    return {
      label: role,
      borderColor: own,
      backgroundColor: own,
      pointStyle: roleShape(role),
      pointRadius: 5,
      pointHoverRadius: 7,
      borderWidth: 2,
      pointBorderWidth: 2,
      ...more,
    };
  }

  /* Intervals: `intervals` of a dataset holds [low, high] or null for each point. */

  function runs(intervals) {
    const found = [];
    intervals.forEach((pair, i) => {
      if (!pair) return;
      if (i > 0 && intervals[i - 1]) found[found.length - 1].push(i);
      else found.push([i]);
    });
    return found;
  }

  function drawBand(chart, { points, intervals, fill }) {
    const { ctx, scales } = chart;
    ctx.fillStyle = fill;
    for (const run of runs(intervals)) {
      ctx.beginPath();
      for (const i of run) ctx.lineTo(points[i].x, scales.y.getPixelForValue(intervals[i][1]));
      for (const i of run.reverse()) ctx.lineTo(points[i].x, scales.y.getPixelForValue(intervals[i][0]));
      ctx.fill();
    }
  }

  function drawWhiskers(chart, { points, intervals, colours }) {
    const { ctx, scales } = chart;
    const flat = chart.options.indexAxis === 'y';
    ctx.lineWidth = 2;
    intervals.forEach((pair, i) => {
      if (!pair) return;
      ctx.strokeStyle = colours[i % colours.length];
      const [low, high] = pair.map((value) => scales[flat ? 'x' : 'y'].getPixelForValue(value));
      ctx.beginPath();
      for (const [a, b] of [[low, high], [low, low], [high, high]]) {
        const cap = a === b ? 4 : 0;
        if (flat) {
          ctx.moveTo(a, points[i].y - cap);
          ctx.lineTo(b, points[i].y + cap);
        } else {
          ctx.moveTo(points[i].x - cap, a);
          ctx.lineTo(points[i].x + cap, b);
        }
      }
      ctx.stroke();
    });
  }

  function clipped(chart, draw) {
    const { left, top, right, bottom } = chart.chartArea;
    chart.ctx.save();
    chart.ctx.beginPath();
    chart.ctx.rect(left, top, right - left, bottom - top);
    chart.ctx.clip();
    draw();
    chart.ctx.restore();
  }

  const intervalPlugin = {
    id: 'intervals',
    beforeDatasetDraw(chart, { index, meta }) {
      const { intervals, band, borderColor } = chart.data.datasets[index];
      if (!intervals || meta.hidden) return;
      const drawn = { points: meta.data, intervals, fill: band, colours: [borderColor].flat() };
      clipped(chart, () => (band ? drawBand : drawWhiskers)(chart, drawn));
    },
  };

  const historyPlugin = {
    id: 'history',
    beforeDraw(chart, _, { until, fill }) {
      if (until === undefined) return;
      const { left, top, bottom } = chart.chartArea;
      const edge = chart.scales.x.getPixelForValue(until);
      chart.ctx.fillStyle = fill;
      chart.ctx.fillRect(left, top, edge - left, bottom - top);
    },
  };

  const drawnPlugin = {
    id: 'drawn',
    afterRender(chart) {
      chart.canvas.dataset.drawn = String(chart.getVisibleDatasetCount());
    },
  };

  /* An axis has room for the intervals of what is shown. */
  function roomForIntervals(scale) {
    scale.chart.data.datasets.forEach(({ intervals = [] }, index) => {
      if (!scale.chart.isDatasetVisible(index)) return;
      for (const [low, high] of intervals.filter(Boolean)) {
        scale.min = Math.min(scale.min, low);
        scale.max = Math.max(scale.max, high);
      }
    });
  }

  function pairOf(line, low = 'low', high = 'high') {
    return line && known(line[low]) && known(line[high]) ? [line[low], line[high]] : null;
  }

  function axis(title, more = {}) {
    const { ticks, grid, ...rest } = more;
    return {
      title: { display: Boolean(title), text: title, color: colour('soft') },
      ticks: { color: colour('ink'), maxRotation: 0, ...ticks },
      grid: { color: colour('line'), ...grid },
      border: { color: colour('soft') },
      ...rest,
    };
  }

  function options(scales, tooltip, more = {}) {
    const { plugins, ...rest } = more;
    return {
      animation: false,
      maintainAspectRatio: false,
      scales,
      plugins: {
        legend: { display: false },
        tooltip: {
          backgroundColor: colour('panel'),
          titleColor: colour('ink'),
          bodyColor: colour('ink'),
          borderColor: colour('soft'),
          borderWidth: 1,
          usePointStyle: true,
          filter: (item) => !item.dataset.aside,
          callbacks: tooltip,
        },
        ...plugins,
      },
      ...rest,
    };
  }

  /* A plot, its legend, and what is hidden in it. `describe` says what is drawn for the choice. */
  class Figure {
    constructor(root, describe) {
      this.root = root;
      this.describe = describe;
      this.hidden = new Set();
      this.box = root.querySelector('.canvas');
      this.canvas = root.querySelector('canvas');
      this.legend = root.querySelector('.legend');
    }

    redraw() {
      if (this.chart) this.chart.destroy();
      this.chart = undefined;
      const drawn = this.describe();
      this.box.hidden = !drawn;
      this.root.querySelector('.empty').hidden = Boolean(drawn);
      this.legend.replaceChildren();
      if (!drawn) return;
      this.box.style.height = drawn.height ? `${drawn.height}px` : '';
      this.canvas.setAttribute('aria-label', drawn.words);
      this.chart = new Chart(this.canvas, {
        ...drawn.config,
        plugins: [intervalPlugin, historyPlugin, drawnPlugin],
      });
      if (drawn.legend) this.fillLegend();
    }

    fillLegend() {
      this.chart.data.datasets.forEach(({ label, aside }, index) => {
        if (aside) return;
        this.legend.append(this.legendButton(label, index));
        if (this.hidden.has(label)) this.chart.hide(index);
      });
    }

    legendButton(role, index) {
      const button = make('button', '', { type: 'button', 'aria-pressed': String(!this.hidden.has(role)) });
      button.append(keyOf(role), role);
      button.addEventListener('click', () => {
        const shown = !this.hidden.delete(role);
        if (shown) this.hidden.add(role);
        button.setAttribute('aria-pressed', String(!shown));
        this.chart.setDatasetVisibility(index, !shown);
        this.chart.update();
      });
      return button;
    }
  }

  /* The leaderboard: a point with its interval for each model. */
  function describeBoard() {
    const own = lines.board.filter((line) => line.label === choice.label && known(line.ndcg));
    if (!own.length) return null;
    own.sort((a, b) => b.ndcg - a.ndcg);
    const colours = own.map((line) => roleColour(line.role));
    const drawn = dataset('', {
      data: own.map((line) => line.ndcg),
      intervals: own.map((line) => pairOf(line)),
      borderColor: colours,
      backgroundColor: colours,
      pointStyle: own.map((line) => roleShape(line.role)),
      showLine: false,
    });
    const scales = {
      x: axis('NDCG@10', { afterDataLimits: roomForIntervals, grace: '5%' }),
      y: axis('', { type: 'category', offset: true, grid: { display: false } }),
    };
    const label = ({ dataIndex: i }) => ` ${fixed(own[i].ndcg)} ${interval(own[i].low, own[i].high)}`;
    return {
      words: `NDCG@10 with 95 % intervals of ${own.length} models on ${choice.label}, best first; the table below has the numbers`,
      height: 70 + 30 * own.length,
      config: {
        type: 'line',
        data: { labels: own.map((line) => line.role), datasets: [drawn] },
        options: options(scales, { label }, { indexAxis: 'y' }),
      },
    };
  }

  /* NDCG by hour: earlier hours first, then those that are judged. */
  function hoursOf() {
    const own = (name) => lines[name].filter((line) => line.label === choice.label);
    const [history, hourly] = [own('history'), own('hourly')];
    const judged = [...new Set(hourly.map((line) => line.hour))].sort();
    const earlier = [...new Set(history.map((line) => line.hour))].filter((hour) => !judged.includes(hour)).sort();
    const found = new Map([...history, ...hourly].map((line) => [`${line.role}\n${line.hour}`, line]));
    const roles = data.roles.filter((role) => [...history, ...hourly].some((line) => line.role === role));
    const hours = [...earlier, ...judged];
    return { hours, earlier: earlier.length, roles, at: (role, hour) => found.get(`${role}\n${hour}`) };
  }

  function hourDataset(role, index, { hours, earlier, roles, at }) {
    const few = hours.length <= FEW_HOURS;
    const shift = few ? (0.5 * (index + 0.5)) / roles.length - 0.25 : 0;
    const own = hours.map((hour) => at(role, hour));
    const alone = (i) => !known(own[i - 1]?.ndcg) && !known(own[i + 1]?.ndcg);
    const before = (i, yes, no) => (i < earlier ? yes : no);
    return dataset(role, {
      data: own.map((line, i) => ({ x: i + shift, y: line ? line.ndcg : null })),
      lines: own,
      intervals: own.map((line) => pairOf(line)),
      band: few ? undefined : faded(roleColour(role), 0.14),
      pointRadius: ({ chart, dataIndex: i }) => {
        if (few || alone(i)) return 5;
        return chart.width / hours.length > ROOM_FOR_A_POINT ? 2.5 : 0;
      },
      pointBorderWidth: few ? 2 : 1,
      pointHitRadius: 10,
      segment: {
        borderDash: ({ p1DataIndex: i }) => before(i, [4, 4], undefined),
        borderColor: ({ p1DataIndex: i }) => before(i, faded(roleColour(role), 0.7), undefined),
      },
    });
  }

  function hourOfDay(hour) {
    const found = /^\d{4}-\d{2}-\d{2}T(\d{2})/.exec(hour);
    return found ? Number(found[1]) : 0;
  }

  function dayOf(hour) {
    const found = /^\d{4}-(\d{2})-(\d{2})/.exec(hour);
    return found ? `${Number(found[2])} ${MONTHS[Number(found[1]) - 1]}` : hour;
  }

  function hourTicks(scale, hours) {
    const most = Math.max(2, Math.floor(scale.chart.width / 55));
    const step = HOUR_STEPS.find((each) => hours.length / each <= most) || hours.length;
    const start = Math.max(0, hours.findIndex((hour) => hourOfDay(hour) % step === 0));
    scale.ticks = hours.map((_, value) => ({ value })).filter(({ value }) => value >= start && (value - start) % step === 0);
  }

  function hourLabel(hours, ticks, index) {
    const [hour, last] = [hours[ticks[index].value], index > 0 ? hours[ticks[index - 1].value] : ''];
    const clock = /T\d{2}/.test(hour) ? [`${hour.slice(11, 13)}:00`] : [];
    return dayOf(hour) === dayOf(last) ? clock : [...clock, dayOf(hour)];
  }

  function hourTooltip({ hours, earlier }) {
    const at = ({ raw }) => Math.round(raw.x);
    return {
      title: (items) => (items.length ? `${hours[at(items[0])]}${at(items[0]) < earlier ? ', an earlier evaluation' : ''}` : ''),
      label: ({ chart, dataset: { label, lines: own }, dataIndex: i }) => {
        const line = own[i];
        const version = chart.width < NARROW ? '' : `, version ${line.version}`;
        return ` ${label}: ${fixed(line.ndcg)} ${interval(line.low, line.high)}${version}`;
      },
    };
  }

  function describeHours() {
    const found = hoursOf();
    const { hours, earlier, roles } = found;
    if (!hours.length) return null;
    const scales = {
      x: axis('hour (UTC)', {
        type: 'linear',
        min: -0.5,
        max: hours.length - 0.5,
        afterBuildTicks: (scale) => hourTicks(scale, hours),
        ticks: { autoSkip: false, callback: (_, index, ticks) => hourLabel(hours, ticks, index) },
      }),
      y: axis('NDCG@10', { afterDataLimits: roomForIntervals, grace: '5%' }),
    };
    const history = earlier ? { until: earlier - 0.5, fill: colour('panel') } : {};
    return {
      words: `NDCG@10 by hour of ${roles.length} models on ${choice.label}: ${hours.length - earlier} judged hours after ${earlier} earlier ones; the numbers are in the table below`,
      legend: true,
      height: hours.length > FEW_HOURS ? undefined : 260,
      config: {
        type: 'line',
        data: { datasets: roles.map((role, i) => hourDataset(role, i, found)) },
        options: options(scales, hourTooltip(found), {
          interaction: { mode: 'index', axis: 'x', intersect: false },
          plugins: { history },
        }),
      },
    };
  }

  function fillHourTable() {
    const { hours, earlier, roles, at } = hoursOf();
    const heads = ['hour', ...roles].map((name) => ({ name }));
    const rows = hours.map((hour, i) => [
      { text: hour, small: i < earlier ? 'earlier' : '' },
      ...roles.map((role) => {
        const line = at(role, hour);
        return { text: fixed(line?.ndcg), small: line ? interval(line.low, line.high) : '' };
      }),
    ]);
    fillTable(document.getElementById('hour-table'), heads, rows);
  }

  /* Segments: the difference of the chosen model to the reference. */
  function segmentsOf(role) {
    const { label, dimension } = choice;
    return lines.segments.filter((s) => s.role === role && s.label === label && s.dimension === dimension);
  }

  function shortened(text, width) {
    const most = Math.max(8, Math.floor(width / 30));
    return text.length > most ? `${text.slice(0, most - 1)}\u2026` : text;
  }

  function segmentTooltip(own) {
    return {
      label: ({ dataIndex: i }) => [
        ` ${signed(own[i].gain)} ${interval(own[i].gain_low, own[i].gain_high, signed)}`,
        ` adjusted p ${probability(own[i].p_value)}, ${whole(own[i].groups)} groups`,
      ],
    };
  }

  function describeSegments() {
    const own = segmentsOf(choice.role).filter((line) => known(line.gain));
    if (!own.length) return null;
    const evident = (line) => known(line.p_value) && line.p_value < data.evident;
    const drawn = dataset(choice.role, {
      data: own.map((line) => line.gain),
      intervals: own.map((line) => pairOf(line, 'gain_low', 'gain_high')),
      pointBackgroundColor: own.map((line) => (evident(line) ? roleColour(choice.role) : colour('ground'))),
      showLine: false,
    });
    const zero = ({ tick }) => colour(tick && tick.value === 0 ? 'soft' : 'line');
    const scales = {
      x: axis(`${choice.role} minus ${data.reference}, NDCG@10`, {
        afterDataLimits: roomForIntervals,
        suggestedMin: 0,
        suggestedMax: 0,
        grace: '5%',
        grid: { color: zero },
      }),
      y: axis('', {
        type: 'category',
        offset: true,
        grid: { display: false },
        ticks: {
          autoSkip: false,
          callback(value) {
            return shortened(this.getLabelForValue(value), this.chart.width);
          },
        },
      }),
    };
    return {
      words: `${choice.role} minus ${data.reference} in NDCG@10 on ${choice.label} by ${choice.dimension}, with 95 % intervals; the table below has the numbers`,
      height: 90 + 26 * own.length,
      config: {
        type: 'line',
        data: { labels: own.map((line) => line.value), datasets: [drawn] },
        options: options(scales, segmentTooltip(own), { indexAxis: 'y' }),
      },
    };
  }

  function fillSegmentTable() {
    const reference = new Map(segmentsOf(data.reference).map((line) => [line.value, line]));
    const heads = [
      { name: choice.dimension, first: 'ascending' }, { name: 'rows' }, { name: 'groups' },
      { name: 'NDCG@10' }, { name: `${data.reference}, NDCG@10` },
      { name: 'difference', first: 'ascending' }, { name: 'adjusted p', first: 'ascending' },
      { name: 'observed rate' }, { name: 'predicted rate' },
    ];
    const rows = segmentsOf(choice.role).map((line) => {
      const other = reference.get(line.value) || {};
      return [
        { text: line.value },
        cell(line.rows, whole), cell(line.groups, whole),
        cell(line.ndcg, fixed, interval(line.low, line.high)),
        cell(other.ndcg, fixed, interval(other.low, other.high)),
        cell(line.gain, signed, interval(line.gain_low, line.gain_high, signed)),
        cell(line.p_value, probability),
        cell(line.observed, fixed), cell(line.predicted, fixed),
      ];
    });
    fillTable(document.getElementById('segment-table'), heads, rows);
  }

  /* Calibration: a line of bins for each model, and the diagonal. */
  function calibrationAxis(title, low, high, logarithmic) {
    const shown = (value) => (logarithmic ? /^[125]/.test(value.toExponential()) : value < high);
    return axis(title, {
      type: logarithmic ? 'logarithmic' : 'linear',
      min: low,
      max: high,
      ticks: { maxTicksLimit: 6, callback: (value) => (shown(value) ? String(+value.toPrecision(2)) : '') },
    });
  }

  function diagonal(low, high) {
    return {
      label: 'diagonal',
      aside: true,
      data: [{ x: low, y: low }, { x: high, y: high }],
      borderColor: colour('soft'),
      borderDash: [6, 4],
      borderWidth: 1.5,
      pointRadius: 0,
      pointHitRadius: 0,
    };
  }

  function binsOf(own, role) {
    const bins = own.filter((line) => line.role === role);
    bins.sort((a, b) => a.predicted - b.predicted);
    return dataset(role, {
      data: bins.map(({ predicted, observed, rows }) => ({ x: predicted, y: observed, rows })),
    });
  }

  function describeCalibration() {
    const logarithmic = document.getElementById('logarithmic').checked;
    const drawable = (line) => !logarithmic || (line.predicted > 0 && line.observed > 0);
    const own = lines.calibration.filter((line) => line.label === choice.label && drawable(line));
    if (!own.length) return null;
    const rates = own.flatMap((line) => [line.predicted, line.observed]);
    const low = logarithmic ? Math.min(...rates) * 0.8 : 0;
    const high = Math.max(...rates) * (logarithmic ? 1.25 : 1.05) || 1;
    const roles = data.roles.filter((role) => own.some((line) => line.role === role));
    const label = ({ dataset: { label: role }, raw }) => [
      ` ${role}, ${whole(raw.rows)} rows`,
      ` predicted ${fixed(raw.x)}, observed ${fixed(raw.y)}`,
    ];
    const scales = {
      x: calibrationAxis('predicted', low, high, logarithmic),
      y: calibrationAxis('observed', low, high, logarithmic),
    };
    return {
      words: `Observed against predicted rate of ${choice.label} for ${roles.length} models, with the diagonal`,
      legend: true,
      config: {
        type: 'line',
        data: { datasets: [...roles.map((role) => binsOf(own, role)), diagonal(low, high)] },
        options: options(scales, { label, title: () => '' }, {
          interaction: { mode: 'nearest', intersect: false },
        }),
      },
    };
  }

  /* Elements. Texts of the report go in as text, never as markup. */

  function make(tag, text, attributes = {}) {
    const element = document.createElement(tag);
    element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  }

  function keyOf(role) {
    const key = make('span', SIGNS[shapeNumber(role)], { class: 'key', 'aria-hidden': 'true' });
    key.style.color = `var(--role-${place(role) % SHAPES.length})`;
    return key;
  }

  function cell(value, shown, small = '') {
    return { text: shown(value), value: known(value) ? String(value) : '', small };
  }

  function fillTable(table, heads, rows) {
    const head = make('tr', '');
    for (const { name, first } of heads) {
      const th = make('th', '', { scope: 'col' });
      if (table.classList.contains('sortable')) {
        th.append(make('button', name, { type: 'button', 'data-first': first || 'descending' }));
      } else {
        th.textContent = name;
      }
      head.append(th);
    }
    const body = make('tbody', '');
    for (const row of rows) body.append(tableRow(row));
    const group = make('thead', '');
    group.append(head);
    table.replaceChildren(group, body);
  }

  function tableRow(row) {
    const line = make('tr', '');
    row.forEach(({ text, value = text, small }, i) => {
      const attributes = { 'data-value': value, ...(i ? { class: 'number' } : { scope: 'row' }) };
      const element = make(i ? 'td' : 'th', text, attributes);
      if (small) element.append(' ', make('small', small));
      line.append(element);
    });
    return line;
  }

  /* Sorting: numbers as numbers, texts as texts, what is not known last. */

  function compared(a, b, sign) {
    if (a === '' || b === '') return (a === '') - (b === '');
    const [x, y] = [Number(a), Number(b)];
    return sign * (Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y);
  }

  function sortBy(button) {
    const th = button.closest('th');
    const body = th.closest('table').tBodies[0];
    const flipped = { ascending: 'descending', descending: 'ascending' };
    const direction = flipped[th.getAttribute('aria-sort')] || button.dataset.first;
    for (const other of th.parentElement.cells) other.removeAttribute('aria-sort');
    th.setAttribute('aria-sort', direction);
    const value = (row) => row.cells[th.cellIndex].dataset.value;
    const sign = direction === 'ascending' ? 1 : -1;
    body.append(...[...body.rows].sort((a, b) => compared(value(a), value(b), sign)));
  }

  /* What is chosen, and what follows from it. */

  function showLabel() {
    for (const part of document.querySelectorAll('.of-label')) {
      part.hidden = part.dataset.label !== choice.label;
    }
    if (document.getElementById('hour-table')) fillHourTable();
    if (document.getElementById('segment-table')) fillSegmentTable();
    redraw();
  }

  function redraw() {
    for (const figure of figures) figure.redraw();
  }

  function offer(id, field, values) {
    const select = document.getElementById(id);
    if (!select) return;
    select.append(...values.map((value) => make('option', value, { value })));
    choice[field] = values[0];
    select.value = values[0];
    select.addEventListener('change', () => {
      choice[field] = select.value;
      showLabel();
    });
  }

  function start() {
    Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
    const plots = {
      'board-plot': describeBoard,
      'hour-plot': describeHours,
      'segment-plot': describeSegments,
      'calibration-plot': describeCalibration,
    };
    for (const [id, describe] of Object.entries(plots)) {
      const root = document.getElementById(id);
      if (root) figures.push(new Figure(root, describe));
    }
    for (const key of document.querySelectorAll('.key[data-role]')) key.replaceWith(keyOf(key.dataset.role));
    offer('dimension', 'dimension', [...new Set(lines.segments.map((line) => line.dimension))]);
    const told = new Set(lines.segments.map((line) => line.role));
    offer('segment-role', 'role', data.roles.filter((role) => told.has(role)));
    document.getElementById('labels')?.addEventListener('change', ({ target }) => {
      choice.label = target.value;
      showLabel();
    });
    document.getElementById('logarithmic')?.addEventListener('change', redraw);
    document.addEventListener('click', ({ target }) => {
      const button = target.closest('thead button');
      if (button) sortBy(button);
    });
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);
    showLabel();
  }

  start();
  return { figures };
})();
