//! What the clients of the clouds need of the environment, checked before the first request: credentials, and an address that they
//! may use. A client without credentials would ask a metadata server for minutes, which exists only inside a cloud.

use crate::error::StoreError;
use crate::place::{Place, Scheme};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use std::env;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

/// The address at which virtual machines of all three clouds find their credentials, and how long it may take to accept a
/// connection.
const METADATA_SERVER: ([u8; 4], u16) = ([169, 254, 169, 254], 80);
const METADATA_TIMEOUT: Duration = Duration::from_millis(1500);

/// Addresses of metadata servers: of virtual machines, of containers of AWS.
const METADATA_ADDRESSES: [&str; 3] = ["://169.254.169.254", "://metadata.google.internal", "://169.254.170.2"];

/// Variables that name another one.
const METADATA_VARIABLES: [&str; 7] = [
    "AWS_METADATA_ENDPOINT",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "IDENTITY_ENDPOINT",
    "AZURE_MSI_ENDPOINT",
    "GCE_METADATA_HOST",
    "GCE_METADATA_ROOT",
    "GCE_METADATA_IP",
];

/// The file that `gcloud auth application-default login` writes, below the user's home.
const GCLOUD_FILE: &str = ".config/gcloud/application_default_credentials.json";

/// Whether a text has the address of a metadata server in it.
pub(crate) fn names_metadata_server(text: &str) -> bool {
    let is_named = |name: &str| set(name).is_some_and(|address| text.contains(&address));
    METADATA_ADDRESSES.iter().any(|address| text.contains(address)) || METADATA_VARIABLES.into_iter().any(is_named)
}

/// The variable that allows addresses without TLS.
pub(crate) fn allow_http_variable(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::S3 => "AWS_ALLOW_HTTP",
        Scheme::Gs => "GOOGLE_ALLOW_HTTP",
        Scheme::Az => "AZURE_ALLOW_HTTP",
        Scheme::Http => "",
    }
}

/// The variable that leaves requests unsigned, for public data.
pub(crate) fn anonymous_variable(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::S3 => "AWS_SKIP_SIGNATURE",
        Scheme::Gs => "GOOGLE_SKIP_SIGNATURE",
        Scheme::Az => "AZURE_SKIP_SIGNATURE",
        Scheme::Http => "",
    }
}

/// Whether requests carry no credentials.
pub(crate) fn is_anonymous(scheme: Scheme) -> bool {
    is_on(set(anonymous_variable(scheme)))
}

/// Whether requests without TLS are allowed.
pub(crate) fn allows_http(place: &Place) -> bool {
    match place.scheme() {
        Scheme::Http => place.root().starts_with("http://"),
        scheme => is_on(set(allow_http_variable(scheme))) || scheme == Scheme::Az && uses_emulator(),
    }
}

fn uses_emulator() -> bool {
    is_on(set("AZURE_STORAGE_USE_EMULATOR"))
}

/// The value of a variable that is set and not empty.
fn set(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// As `object_store` reads switches.
fn is_on(value: Option<String>) -> bool {
    value.is_some_and(|value| ["1", "true", "on", "yes", "y"].contains(&value.to_ascii_lowercase().as_str()))
}

/// Checks the settings of S3.
///
/// # Errors
/// [`StoreError::Endpoint`]; [`StoreError::NoCredentials`].
pub(crate) fn check_s3(place: &Place, builder: &AmazonS3Builder) -> Result<(), StoreError> {
    use AmazonS3ConfigKey::{
        AccessKeyId, ContainerAuthorizationTokenFile, ContainerCredentialsFullUri, ContainerCredentialsRelativeUri,
        MetadataEndpoint, RoleArn, SecretAccessKey, WebIdentityTokenFile,
    };
    check_endpoint(place, &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"])?;
    let has = |key| builder.get_config_value(&key).is_some_and(|value: String| !value.is_empty());
    let alone = |missing: &str, there: &str| no_credentials(place, format!("{missing} is missing beside {there}"));
    match (has(AccessKeyId), has(SecretAccessKey)) {
        _ if is_anonymous(Scheme::S3) => return Ok(()),
        (true, true) => return Ok(()),
        (true, false) => return alone("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"),
        (false, true) => return alone("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        (false, false) => {}
    }
    let has_identity = has(WebIdentityTokenFile) && has(RoleArn);
    let has_pod = has(ContainerCredentialsFullUri) && has(ContainerAuthorizationTokenFile);
    if has_identity || has_pod || has(ContainerCredentialsRelativeUri) || has(MetadataEndpoint) {
        return Ok(());
    }
    check_metadata(place, is_on(set("AWS_EC2_METADATA_DISABLED")))
}

/// Checks the settings of Google Cloud Storage.
///
/// # Errors
/// As [`check_s3`].
pub(crate) fn check_google(place: &Place, builder: &GoogleCloudStorageBuilder) -> Result<(), StoreError> {
    use GoogleConfigKey::{ApplicationCredentials, BearerToken, ServiceAccount, ServiceAccountKey};
    check_endpoint(place, &["GOOGLE_BASE_URL"])?;
    let value = |key| builder.get_config_value(&key);
    if is_anonymous(Scheme::Gs) || value(BearerToken).is_some() || value(ServiceAccountKey).is_some() {
        return Ok(());
    }
    let files =
        [(ServiceAccount, "GOOGLE_SERVICE_ACCOUNT"), (ApplicationCredentials, "GOOGLE_APPLICATION_CREDENTIALS")];
    for (key, name) in files {
        match value(key) {
            Some(path) if Path::new(&path).is_file() => return Ok(()),
            Some(path) => return no_credentials(place, format!("{name} names the file {path:?}, which is not there")),
            None => {}
        }
    }
    let has_login = env::var_os("HOME").is_some_and(|home| Path::new(&home).join(GCLOUD_FILE).is_file());
    let has_address =
        ["GCE_METADATA_HOST", "GCE_METADATA_ROOT", "GCE_METADATA_IP"].iter().any(|name| set(name).is_some());
    if has_login || has_address {
        return Ok(());
    }
    check_metadata(place, is_on(set("NO_GCE_CHECK")))
}

/// Checks the settings of Azure.
///
/// # Errors
/// As [`check_s3`].
pub(crate) fn check_azure(place: &Place, builder: &MicrosoftAzureBuilder) -> Result<(), StoreError> {
    use AzureConfigKey::{
        AccessKey, AccountName, AuthorityId, ClientId, ClientSecret, CredentialType, FabricTokenServiceUrl,
        FederatedTokenFile, MsiEndpoint, SasKey, Token, UseAzureCli,
    };
    if uses_emulator() {
        return Ok(());
    }
    check_endpoint(place, &["AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"])?;
    let value = |key| builder.get_config_value(&key).filter(|value: &String| !value.is_empty());
    if value(AccountName).is_none() {
        let more = match set("AZURE_STORAGE_CONNECTION_STRING") {
            Some(_) => " (AZURE_STORAGE_CONNECTION_STRING is not read)",
            None => "",
        };
        return no_credentials(place, format!("AZURE_STORAGE_ACCOUNT_NAME is missing{more}"));
    }
    let names_some = [AccessKey, SasKey, Token, CredentialType, FabricTokenServiceUrl, MsiEndpoint]
        .into_iter()
        .any(|key| value(key).is_some());
    if is_anonymous(Scheme::Az) || names_some || is_on(value(UseAzureCli)) {
        return Ok(());
    }
    if value(ClientSecret).is_some() || value(FederatedTokenFile).is_some() {
        let identity = [(ClientId, "AZURE_CLIENT_ID"), (AuthorityId, "AZURE_TENANT_ID")];
        return match identity.into_iter().find(|(key, _)| value(*key).is_none()) {
            Some((_, name)) => no_credentials(place, format!("{name} is missing beside the client's secret or token")),
            None => Ok(()),
        };
    }
    check_metadata(place, false)
}

/// Refuses an address that the client cannot use, by the name of its variable.
fn check_endpoint(place: &Place, variables: &[&'static str]) -> Result<(), StoreError> {
    let Some((variable, address)) = variables.iter().find_map(|name| Some((*name, set(name)?))) else { return Ok(()) };
    let lower = address.to_ascii_lowercase();
    let is_plain = lower.starts_with("http://");
    if lower.starts_with("https://") || is_plain && allows_http(place) {
        return Ok(());
    }
    let problem = match is_plain {
        true => without_tls(place.scheme()),
        false => "expected an address that begins with https:// or http://".to_owned(),
    };
    Err(StoreError::Endpoint { place: place.clone(), what: format!("{variable} is {address}"), problem })
}

/// What is wrong with an address that begins with http://.
pub(crate) fn without_tls(scheme: Scheme) -> String {
    format!("without TLS, which is refused unless {}=true is set", allow_http_variable(scheme))
}

fn no_credentials(place: &Place, missing: String) -> Result<(), StoreError> {
    Err(StoreError::NoCredentials { place: place.clone(), missing })
}

/// Whether a metadata server may give credentials where the environment has none.
fn check_metadata(place: &Place, is_off: bool) -> Result<(), StoreError> {
    let answers = || TcpStream::connect_timeout(&SocketAddr::from(METADATA_SERVER), METADATA_TIMEOUT).is_ok();
    match !is_off && answers() {
        true => Ok(()),
        false => no_credentials(place, "there are no credentials in the environment".to_owned()),
    }
}
