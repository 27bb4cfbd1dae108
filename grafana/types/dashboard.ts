// What a dashboard of ours may be: Grafana's own types (@grafana/schema, pinned in package-lock.json), narrowed to the panels that both Grafana and our viewer
// draw, with the options and fields of each panel type. The test that reads this compiles each dashboard as a literal of `Whole`: an option that is misspelled,
// of a wrong type or unknown to Grafana does not compile.
import type { Dashboard, FieldConfig, FieldConfigSource, Panel, RowPanel } from './node_modules/@grafana/schema/dist/types/raw/dashboard/x/types.gen';
import type * as barchart from './node_modules/@grafana/schema/dist/types/raw/composable/barchart/panelcfg/x/types.gen';
import type * as bargauge from './node_modules/@grafana/schema/dist/types/raw/composable/bargauge/panelcfg/x/types.gen';
import type * as gauge from './node_modules/@grafana/schema/dist/types/raw/composable/gauge/panelcfg/x/types.gen';
import type * as heatmap from './node_modules/@grafana/schema/dist/types/raw/composable/heatmap/panelcfg/x/types.gen';
import type * as piechart from './node_modules/@grafana/schema/dist/types/raw/composable/piechart/panelcfg/x/types.gen';
import type * as stat from './node_modules/@grafana/schema/dist/types/raw/composable/stat/panelcfg/x/types.gen';
import type * as table from './node_modules/@grafana/schema/dist/types/raw/composable/table/panelcfg/x/types.gen';
import type * as text from './node_modules/@grafana/schema/dist/types/raw/composable/text/panelcfg/x/types.gen';
import type * as timeseries from './node_modules/@grafana/schema/dist/types/raw/composable/timeseries/panelcfg/x/types.gen';

/** An enum's members are plain strings in JSON. */
type Plain<T> = T extends string ? `${T}` : T extends number | boolean | null | undefined ? T : unknown extends T ? T : { [K in keyof T]: Plain<T[K]> };

/** Grafana leaves the data source's part open; this is what the one for ClickHouse reads. */
interface Target {
  refId: string;
  datasource: { type: 'grafana-clickhouse-datasource'; uid: 'clickhouse' };
  editorType: 'sql';
  queryType: 'table' | 'timeseries';
  format: 0 | 1;
  rawSql: string;
}

type Of<Type extends string, Options, Custom> = Omit<Plain<Panel>, 'type' | 'options' | 'fieldConfig' | 'targets'> & {
  type: Type;
  options: Plain<Options>;
  targets?: Target[];
  fieldConfig: Omit<Plain<FieldConfigSource>, 'defaults'> & { defaults: Omit<Plain<FieldConfig>, 'custom'> & { custom?: Plain<Custom> } };
};

type Drawn =
  | Of<'barchart', barchart.Options, barchart.FieldConfig>
  | Of<'bargauge', bargauge.Options, never>
  | Of<'gauge', gauge.Options, never>
  | Of<'heatmap', heatmap.Options, heatmap.FieldConfig>
  | Of<'piechart', piechart.Options, piechart.FieldConfig>
  | Of<'stat', stat.Options, never>
  | Of<'table', table.Options, table.FieldConfig>
  | Of<'text', text.Options, never>
  | Of<'timeseries', timeseries.Options, timeseries.FieldConfig>
  | Plain<RowPanel>;

export type Whole = Omit<Plain<Dashboard>, 'panels'> & { panels: Drawn[] };
