//! The dashboards as web pages: the Grafana JSON files of `grafana/dashboards`, their variables and the ClickHouse data source's macros expanded, their queries
//! run as a user who may only read, their panels drawn in the browser. One definition, two viewers: the same files open in Grafana.
//!
//! [`serve`] is all there is to call. No page asks anything of another machine: the chart library is handed over by the caller and served from here.

mod dashboards;
mod frames;
mod interpolate;
mod macros;
mod markdown;
mod named;
mod own_range;
mod pages;
mod scene;
mod server;
mod settings;
mod source;
mod sql;
mod time;
mod variables;
mod viewer;

pub use dashboards::{Dashboard, DashboardError, Panel, Target, load};
pub use macros::MACROS;
pub use named::{Asking, NamedQuery, Reader, named_queries};
pub use server::{ServeError, serve};
pub use settings::ViewerSettings;
pub use source::SourceError;
pub use viewer::ViewError;
