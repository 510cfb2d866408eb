showKeys();
showOverview();
showCurves();
showSample();
showFilters();
applyFilter();
byId('list').addEventListener('scroll', () => {
  const list = byId('list');
  if (list.scrollTop + 2 * list.clientHeight > list.scrollHeight) makeRows(made + ROWS_AT_ONCE);
});
