//! The schema registry: registration of our schemas, and writers' schemas by id.

use std::time::Duration;

use activity_schemas::{EventKind, avro};
use schema_registry_converter::async_impl::schema_registry::{
    SrSettings, get_schema_by_id, post_schema,
};
use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{RawError, SchemaType, SuppliedSchema};
use serde::Deserialize;

use crate::advice::{after_connection, after_http};
use crate::http::{chain, registry_client};
use crate::security::{certificates, http_problem, password};
use crate::settings::{RegistrySettings, SettingsError};

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The rule that the registry applies to every subject: any version reads any other, so that groups and producers upgrade when they like.
const COMPATIBILITY: &str = "FULL_TRANSITIVE";

/// How often a rule is set again after a conflict with somebody who sets it at the same time.
const CONFLICTS_MAX: u32 = 5;

/// What goes wrong with the registry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No registry was given, or it cannot be spoken to as configured.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// It does not answer, or not now: try again.
    #[error("schema registry: {0}{hint}", hint = after_connection(.0))]
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
    user: Option<(String, Option<String>)>,
}

impl Registry {
    /// Makes the client; nothing is sent yet.
    ///
    /// # Errors
    /// If no registry was given, or the settings do not fit together or name a file that cannot be read.
    pub fn new(settings: &RegistrySettings) -> Result<Self, Error> {
        let url = settings.url().map_err(SettingsError::from)?.to_owned();
        let wrong = |problem: String| Error::Settings(SettingsError::Wrong(problem));
        let ca_file = settings.registry_ca_file.as_deref();
        if let Some(problem) = http_problem("registry", &url, ca_file) {
            return Err(wrong(problem));
        }
        let authorities = ca_file.map(|path| certificates("--registry-ca-file", path));
        let authorities = authorities.transpose()?;
        let builder = || {
            registry_client(&url, authorities.as_deref(), REQUEST_TIMEOUT)
                .map_err(|error| wrong(chain(&error)))
        };
        let user = user(settings)?;
        let mut registry = SrSettings::new_builder(url.clone());
        registry.set_timeout(REQUEST_TIMEOUT).no_proxy();
        if let Some((name, password)) = &user {
            registry.set_basic_authorization(name, password.as_deref());
        }
        let unusable = |error: &dyn std::fmt::Display| Error::Unavailable(error.to_string());
        let settings = registry
            .build_with(builder()?)
            .map_err(|error| unusable(&error))?;
        let http = builder()?.build().map_err(|error| unusable(&error))?;
        Ok(Self {
            url,
            settings,
            http,
            user,
        })
    }

    fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}/{path}", self.url));
        match &self.user {
            Some((name, password)) => request.basic_auth(name, password.as_deref()),
            None => request,
        }
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
            .request(reqwest::Method::GET, path)
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
            .request(reqwest::Method::PUT, path)
            .json(&serde_json::json!({ "compatibility": COMPATIBILITY }));
        let response = request
            .send()
            .await
            .map_err(|error| Error::Unavailable(chain(&error)))?;
        if response.status().is_success() {
            return Ok(String::new());
        }
        let status = response.status();
        let hint = after_http(status.as_u16());
        let answer = response.text().await.unwrap_or_default();
        Ok(format!("{status} at /{path}: {answer}{hint}"))
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

    /// Names of all subjects: what shows that it answers, and lets us in.
    ///
    /// # Errors
    /// [`Error::Unavailable`]
    pub async fn subjects(&self) -> Result<Vec<String>, Error> {
        let unavailable = |error: reqwest::Error| Error::Unavailable(chain(&error));
        let response = self.request(reqwest::Method::GET, "subjects").send().await;
        let response = response.map_err(unavailable)?;
        let status = response.status();
        if !status.is_success() {
            let hint = after_http(status.as_u16());
            return Err(Error::Unavailable(format!("{status} at /subjects{hint}")));
        }
        response.json().await.map_err(unavailable)
    }

    /// Its version, where it is Apicurio's, which says so beside the Confluent-compatible pages; None: it does not say.
    pub async fn version(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Info {
            version: String,
        }
        let (root, _) = self.url.split_once("/apis/")?;
        let asked = self
            .http
            .get(format!("{root}/apis/registry/v3/system/info"))
            .send();
        let info: Info = asked.await.ok()?.json().await.ok()?;
        Some(info.version)
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

/// Name and password, where the registry asks for them.
fn user(settings: &RegistrySettings) -> Result<Option<(String, Option<String>)>, SettingsError> {
    let Some(name) = &settings.registry_user else {
        return match settings.registry_password_file {
            Some(_) => Err(SettingsError::Wrong(
                "--registry-password-file needs --registry-user".to_owned(),
            )),
            None => Ok(None),
        };
    };
    let file = settings.registry_password_file.as_deref();
    let password = file.map(|path| password("--registry-password-file", path));
    Ok(Some((name.clone(), password.transpose()?)))
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
    match std::error::Error::source(error) {
        Some(cause) => format!("{}: {}", error.error, chain(cause)),
        None => error.error.clone(),
    }
}
