showKeys();
showOverview();
showCurves();
showSample();
showFilters();
// Repairs are what the page is for; `Reset` shows all.
if (trajectories.some((trajectory) => isOfKind(trajectory, 'repaired'))) filter.kind = 'repaired';
applyFilter();
byId('list').addEventListener('scroll', () => {
  const list = byId('list');
  if (list.scrollTop + 2 * list.clientHeight > list.scrollHeight) makeRows(made + ROWS_AT_ONCE);
});
