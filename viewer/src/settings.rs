//! What the viewer is told.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use activity_platform::settings::ClickHouseSettings;
use clap::Args;

/// Where pages are served unless another address is given; a free port where it is taken.
const PORT: u16 = 3000;

/// The dashboards' pages.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Viewer")]
pub struct ViewerSettings {
    /// Where the dashboards' pages are served. Whoever reaches this address sees the data. Default: 127.0.0.1:3000, or a free port where that is taken.
    #[arg(long, env = "ACTIVITY_LISTEN", value_name = "HOST:PORT")]
    pub listen: Option<SocketAddr>,
    /// Folder of Grafana dashboards, *.json, read anew at each page. Default: the built-in ones.
    #[arg(long, env = "ACTIVITY_DASHBOARDS", value_name = "DIR")]
    pub dashboards: Option<PathBuf>,
    /// ClickHouse user whom the panels' queries run as: it should be able to read, and nothing else.
    #[arg(
        long,
        env = "ACTIVITY_VIEWER_USER",
        value_name = "NAME",
        default_value = "viewer"
    )]
    pub viewer_user: String,
    /// File that holds this user's password.
    #[arg(long, env = "ACTIVITY_VIEWER_PASSWORD_FILE", value_name = "FILE")]
    pub viewer_password_file: Option<PathBuf>,
}

impl ViewerSettings {
    /// ClickHouse as the viewer's own user sees it.
    pub(crate) fn clickhouse(&self, clickhouse: &ClickHouseSettings) -> ClickHouseSettings {
        ClickHouseSettings {
            clickhouse_user: self.viewer_user.clone(),
            clickhouse_password_file: self.viewer_password_file.clone(),
            ..clickhouse.clone()
        }
    }

    /// The addresses to try in turn.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        match self.listen {
            Some(address) => vec![address],
            None => vec![local(PORT), local(0)],
        }
    }
}
