//! Alerts, as Prometheus has them (`/api/v1/alerts`).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// How long Prometheus may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// An alert that is pending or firing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Alert {
    /// Its name.
    pub name: String,
    /// `pending`: its condition holds, not yet for long enough; `firing`.
    pub state: String,
    /// The group that it is about, if it is about one.
    pub group: Option<String>,
    /// What it says.
    pub summary: String,
    /// Where it is described what to do.
    pub runbook: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    alerts: Vec<Told>,
}

#[derive(Deserialize)]
struct Told {
    state: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// None: no Prometheus, or it does not answer, which its line among the services says.
pub(super) async fn look(url: Option<&str>) -> Option<Vec<Alert>> {
    let url = format!("{}/api/v1/alerts", url?.trim_end_matches('/'));
    let answer: Answer = get(&url).await.ok()?;
    Some(read(answer))
}

fn read(answer: Answer) -> Vec<Alert> {
    let alert = |mut told: Told| Alert {
        name: told.labels.remove("alertname").unwrap_or_default(),
        group: told.labels.remove("consumergroup"),
        summary: (told.annotations.remove("summary"))
            .or_else(|| told.annotations.remove("description"))
            .unwrap_or_default(),
        runbook: (told.annotations.remove("runbook_url"))
            .or_else(|| told.annotations.remove("runbook")),
        state: told.state,
    };
    let mut alerts: Vec<Alert> = answer.data.alerts.into_iter().map(alert).collect();
    // `firing` before `pending`.
    alerts.sort_by(|a, b| (&a.state, &a.name, &a.group).cmp(&(&b.state, &b.name, &b.group)));
    alerts
}

/// An answer in JSON; in words why there is none.
pub(super) async fn get<T: DeserializeOwned>(url: &str) -> Result<T, String> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(ANSWER_TIMEOUT)
        .build()
        .map_err(|error| error.to_string())?;
    let answer = client
        .get(url)
        .send()
        .await
        .map_err(|error| error.to_string())?;
    let answer = answer
        .error_for_status()
        .map_err(|error| error.to_string())?;
    answer.json().await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_are_read_as_prometheus_tells_them_firing_ones_first() {
        let text = r#"{"status":"success","data":{"alerts":[
            {"labels":{"alertname":"Slow","severity":"warning"},"annotations":{"description":"d"},"state":"pending","activeAt":"2026-11-22T08:00:00Z","value":"1e+00"},
            {"labels":{"alertname":"Down","consumergroup":"fraud"},"annotations":{"summary":"s","runbook_url":"r"},"state":"firing","activeAt":"2026-11-22T08:00:00Z","value":"1e+00"}
        ]}}"#;
        insta::assert_json_snapshot!(read(serde_json::from_str(text).unwrap()));
    }
}
