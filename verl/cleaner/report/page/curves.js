// The curves: large charts first, then a small one for each class of error, all on one scale.
function showCurves() {
  const place = byId('curves');
  const large = data.charts.filter((spec) => !spec.small), small = data.charts.filter((spec) => spec.small);
  if (!data.charts.length) {
    place.append(element('p', { class: 'note' }, 'Nothing has been logged yet.'));
    return;
  }
  place.append(element('div', { class: 'charts' }, large.map((spec) => new Chart(spec).node)));
  if (small.length) {
    place.append(element('h3', { class: 'sub' }, 'Rollbacks by class of error'),
      element('p', { class: 'note' }, 'Number in a step, on one scale. Solid: rolled back, dashed: recovered.'),
      element('div', { class: 'charts smalls' }, small.map((spec) => new Chart(spec).node)));
  }
  drawCharts();
  let width = place.clientWidth;
  new ResizeObserver(() => {
    if (place.clientWidth !== width) drawCharts();
    width = place.clientWidth;
  }).observe(place);
}
