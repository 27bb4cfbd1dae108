//! The schema registry: registration of our schemas, and writers' schemas by id.

use std::time::Duration;

use activity_schemas::{EventKind, avro};
use schema_registry_converter::async_impl::schema_registry::{
    SrSettings, get_schema_by_id, post_schema,
};
use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{RawError, SchemaType, SuppliedSchema};
use serde::Deserialize;

use crate::settings::{MissingAddress, RegistrySettings};

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The rule that the registry applies to every subject: any version reads any other, so that groups and producers upgrade when they like.
const COMPATIBILITY: &str = "FULL_TRANSITIVE";

/// How often a rule is set again after a conflict with somebody who sets it at the same time.
const CONFLICTS_MAX: u32 = 5;

/// What goes wrong with the registry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No registry was given.
    #[error(transparent)]
    Address(#[from] MissingAddress),
    /// It does not answer, or not now: try again.
    #[error("schema registry: {0}")]
    Unavailable(String),
    /// It answered that there is no such schema.
    #[error("schema registry: no schema has id {id}")]
    NoSuchSchema {
        /// The id.
        id: u32,
    },
    /// It refused a schema.
    #[error("schema registry refused {subject}: {why}")]
    Refused {
        /// The subject.
        subject: String,
        /// Its reason.
        why: String,
    },
}

/// A client of one registry.
#[derive(Clone)]
pub struct Registry {
    url: String,
    settings: SrSettings,
    http: reqwest::Client,
}

impl Registry {
    /// Makes the client; nothing is sent yet.
    ///
    /// # Errors
    /// If no registry was given or the HTTP client cannot be made.
    pub fn new(settings: &RegistrySettings) -> Result<Self, Error> {
        let url = settings.url()?.to_owned();
        let unusable = |error: &dyn std::fmt::Display| Error::Unavailable(error.to_string());
        let settings = SrSettings::new_builder(url.clone())
            .set_timeout(REQUEST_TIMEOUT)
            .no_proxy()
            .build()
            .map_err(|error| unusable(&error))?;
        let http = reqwest::Client::builder()
            .timeout(REQUEST_TIMEOUT)
            .no_proxy()
            .build()
            .map_err(|error| unusable(&error))?;
        Ok(Self {
            url,
            settings,
            http,
        })
    }

    /// Makes [`COMPATIBILITY`] the registry's rule and that of the subject; a subject's own rule would hide the registry's.
    ///
    /// # Errors
    /// If the registry does not answer or refuses.
    pub async fn require_compatibility(&self, topic: &str) -> Result<(), Error> {
        for path in ["config".to_owned(), format!("config/{}", subject(topic))] {
            let mut refusal = String::new();
            for _ in 0..CONFLICTS_MAX {
                if self.compatibility(&path).await?.as_deref() == Some(COMPATIBILITY) {
                    refusal.clear();
                    break;
                }
                // Where two set rules at once, one gets a conflict; the next look shows what the other has set.
                refusal = self.put_compatibility(&path).await?;
            }
            if !refusal.is_empty()
                && self.compatibility(&path).await?.as_deref() != Some(COMPATIBILITY)
            {
                return Err(Error::Refused {
                    subject: subject(topic),
                    why: refusal,
                });
            }
        }
        Ok(())
    }

    /// The rule at a path; None where there is none of its own.
    async fn compatibility(&self, path: &str) -> Result<Option<String>, Error> {
        #[derive(Deserialize)]
        struct Rule {
            #[serde(rename = "compatibilityLevel")]
            level: String,
        }
        let response = self
            .http
            .get(format!("{}/{path}", self.url))
            .send()
            .await
            .map_err(|error| Error::Unavailable(chain(&error)))?;
        if !response.status().is_success() {
            return Ok(None);
        }
        let rule: Rule = response
            .json()
            .await
            .map_err(|error| Error::Unavailable(chain(&error)))?;
        Ok(Some(rule.level))
    }

    /// Sets the rule at a path; the registry's refusal, or nothing.
    async fn put_compatibility(&self, path: &str) -> Result<String, Error> {
        let request = self
            .http
            .put(format!("{}/{path}", self.url))
            .json(&serde_json::json!({ "compatibility": COMPATIBILITY }));
        let response = request
            .send()
            .await
            .map_err(|error| Error::Unavailable(chain(&error)))?;
        if response.status().is_success() {
            return Ok(String::new());
        }
        Ok(format!(
            "{} at /{path}: {}",
            response.status(),
            response.text().await.unwrap_or_default()
        ))
    }

    /// Registers every version of an event's schema for a topic, oldest first; returns the id of the newest. Registering again changes nothing.
    ///
    /// # Errors
    /// If the registry does not answer or refuses a version.
    pub async fn register(&self, kind: EventKind, topic: &str) -> Result<u32, Error> {
        let mut id = 0;
        for version in avro::versions(kind) {
            let supplied = SuppliedSchema::new(None, SchemaType::Avro, version.json.to_owned());
            let registered = post_schema(&self.settings, subject(topic), supplied).await;
            id = registered
                .map_err(|error| refused_or_unavailable(&subject(topic), &error))?
                .id;
        }
        Ok(id)
    }

    /// The schema of an id, as JSON.
    ///
    /// # Errors
    /// [`Error::NoSuchSchema`] if the registry answered so, [`Error::Unavailable`] if it did not answer.
    pub async fn schema(&self, id: u32) -> Result<String, Error> {
        match get_schema_by_id(id, &self.settings).await {
            Ok(schema) => Ok(schema.schema),
            Err(error) if schema_not_found(&error) => Err(Error::NoSuchSchema { id }),
            Err(error) => Err(Error::Unavailable(describe(&error))),
        }
    }
}

/// TopicNameStrategy: what Java's serializers use by default.
fn subject(topic: &str) -> String {
    format!("{topic}-value")
}

/// Only the registry's own word that an id does not exist makes its messages dead letters; a proxy's 404 or a failing registry must not.
/// 40403 is the Confluent API's code for "schema not found".
fn schema_not_found(error: &SRCError) -> bool {
    let raw = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<RawError>());
    raw.is_some_and(|raw| raw.error_code == 40403)
}

fn refused_or_unavailable(subject: &str, error: &SRCError) -> Error {
    if error.retriable {
        Error::Unavailable(describe(error))
    } else {
        Error::Refused {
            subject: subject.to_owned(),
            why: describe(error),
        }
    }
}

fn describe(error: &SRCError) -> String {
    match &error.cause {
        Some(cause) => format!("{}: {cause}", error.error),
        None => error.error.clone(),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
