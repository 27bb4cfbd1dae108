//! What Prometheus says of its alerts.

use std::time::{Duration, Instant};

use reqwest::Client;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Longer than any rule's shortened ranges together, on a machine that compiles.
const PATIENCE: Duration = Duration::from_secs(240);

/// Looks at one Prometheus.
pub struct Watch {
    client: Client,
    url: String,
}

#[derive(Deserialize)]
struct Answer {
    data: Alerts,
}

#[derive(Deserialize)]
struct Alerts {
    alerts: Vec<Alert>,
}

/// An alert that is pending or firing.
#[derive(Clone, Debug, Deserialize)]
pub struct Alert {
    pub state: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

impl Alert {
    fn is(&self, name: &str, group: Option<&str>) -> bool {
        let label = |label: &str| self.labels.get(label).map(String::as_str);
        self.state == "firing"
            && label("alertname") == Some(name)
            && group.is_none_or(|group| label("consumergroup") == Some(group))
    }
}

impl Watch {
    pub fn new(url: &str) -> Self {
        Self {
            client: Client::builder().no_proxy().build().unwrap(),
            url: url.to_owned(),
        }
    }

    /// All alerts that are on.
    pub async fn alerts(&self) -> Vec<Alert> {
        let sent = self.client.get(format!("{}/api/v1/alerts", self.url));
        let answer = sent.send().await.unwrap();
        answer.json::<Answer>().await.unwrap().data.alerts
    }

    /// The value of a query that has one.
    pub async fn value(&self, query: &str) -> Option<f64> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let url = format!("{}/api/v1/query?query={encoded}", self.url);
        let sent = self.client.get(url).send().await.unwrap();
        let answer: Value = sent.json().await.unwrap();
        let value = answer["data"]["result"][0]["value"][1].as_str()?;
        value.parse().ok()
    }

    pub async fn is_on(&self, name: &str, group: Option<&str>) -> bool {
        self.alerts()
            .await
            .iter()
            .any(|alert| alert.is(name, group))
    }

    /// Waits until an alert fires; how long that took, and what it says, which must be said well.
    pub async fn fires(&self, name: &str, group: Option<&str>) -> f64 {
        let began = Instant::now();
        loop {
            let alerts = self.alerts().await;
            if let Some(alert) = alerts.iter().find(|alert| alert.is(name, group)) {
                check_words(alert);
                return began.elapsed().as_secs_f64();
            }
            assert!(
                began.elapsed() < PATIENCE,
                "{name} does not fire: {alerts:#?}"
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until an alert is over; how long that took.
    pub async fn clears(&self, name: &str, group: Option<&str>) -> f64 {
        let began = Instant::now();
        while self.is_on(name, group).await {
            assert!(began.elapsed() < PATIENCE, "{name} does not end");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        began.elapsed().as_secs_f64()
    }
}

/// A template that cannot be filled says so in the text.
fn check_words(alert: &Alert) {
    for name in ["summary", "description", "runbook", "runbook_url"] {
        let text = &alert.annotations[name];
        assert!(!text.contains('<') && !text.contains("{{"), "{alert:#?}");
        assert!(!text.is_empty(), "{alert:#?}");
    }
    assert!(["critical", "warning"].contains(&alert.labels["severity"].as_str()));
}
