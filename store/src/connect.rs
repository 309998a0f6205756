//! A bucket's client, from the usual variables of its cloud.

use crate::error::{StoreError, classify};
use crate::place::{Place, Scheme};
use crate::traffic::CountingConnector;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Retries of one request.
pub const RETRIES_MAX: usize = 10;
/// How long the retries of one request may take together.
const RETRY_TIMEOUT: Duration = Duration::from_secs(120);
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// How long a connection may take to be made, and how long it may be silent before it is given up and made again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// The address at which virtual machines of AWS find their credentials (EC2 instance metadata service), and how long it may take to
/// accept a connection.
const METADATA_SERVER: ([u8; 4], u16) = ([169, 254, 169, 254], 80);
const METADATA_TIMEOUT: Duration = Duration::from_millis(1500);

/// Variables that say where credentials of S3 come from.
const S3_CREDENTIALS: [&str; 7] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
    "AWS_METADATA_ENDPOINT",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
];

/// A client of one bucket.
pub(crate) struct Client {
    pub(crate) store: Arc<dyn ObjectStore>,
    /// The same one where it is S3, for what only S3 has.
    pub(crate) s3: Option<AmazonS3>,
}

/// Makes the client of a place's bucket. No request is made yet.
pub(crate) fn connect(place: &Place) -> Result<Client, StoreError> {
    let plain = |store: Arc<dyn ObjectStore>| Client { store, s3: None };
    let refused = |error: object_store::Error| classify(place, "connect to", &error);
    // The builders have these methods by the same names, and no trait.
    macro_rules! built {
        ($builder:expr) => {
            $builder
                .with_client_options(options(place))
                .with_retry(retries())
                .with_http_connector(CountingConnector)
                .build()
                .map_err(refused)
        };
    }
    match place.scheme() {
        Scheme::S3 => {
            check_credentials(place)?;
            let mut builder = AmazonS3Builder::from_env();
            if builder.get_config_value(&AmazonS3ConfigKey::Region).is_none()
                && let Ok(region) = std::env::var("AWS_DEFAULT_REGION")
            {
                builder = builder.with_region(region);
            }
            let s3 = built!(builder.with_bucket_name(place.bucket()))?;
            Ok(Client { store: Arc::new(s3.clone()), s3: Some(s3) })
        }
        Scheme::Gs => Ok(plain(Arc::new(built!(GoogleCloudStorageBuilder::from_env().with_url(place.root()))?))),
        Scheme::Az => Ok(plain(Arc::new(built!(MicrosoftAzureBuilder::from_env().with_url(place.root()))?))),
        Scheme::Http => Ok(plain(Arc::new(built!(HttpBuilder::new().with_url(place.root()))?))),
    }
}

fn options(place: &Place) -> ClientOptions {
    // No timeout for a whole request: it may take as long as it needs while bytes arrive.
    // HTTPS_PROXY and similar variables are read by the HTTP library.
    ClientOptions::new()
        .with_timeout_disabled()
        .with_read_timeout(SILENCE_MAX)
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_allow_http(allows_http(place))
}

fn allows_http(place: &Place) -> bool {
    let is_set = |name: &str| std::env::var(name).is_ok_and(|value| value.eq_ignore_ascii_case("true") || value == "1");
    match place.scheme() {
        Scheme::S3 => is_set("AWS_ALLOW_HTTP"),
        Scheme::Gs => is_set("GOOGLE_ALLOW_HTTP"),
        Scheme::Az => is_set("AZURE_ALLOW_HTTP") || is_set("AZURE_STORAGE_USE_EMULATOR"),
        Scheme::Http => place.root().starts_with("http://"),
    }
}

fn retries() -> RetryConfig {
    RetryConfig {
        // The library adds jitter: each wait is drawn between the first one and three times the last.
        backoff: BackoffConfig { init_backoff: BACKOFF_FIRST, max_backoff: BACKOFF_MAX, base: 3.0 },
        max_retries: RETRIES_MAX,
        retry_timeout: RETRY_TIMEOUT,
    }
}

/// Fails at once where there are no credentials: outside of AWS the client would try for minutes to get them from a metadata server
/// that does not exist.
fn check_credentials(place: &Place) -> Result<(), StoreError> {
    if S3_CREDENTIALS.iter().any(|name| std::env::var_os(name).is_some()) {
        return Ok(());
    }
    let address = SocketAddr::from(METADATA_SERVER);
    match TcpStream::connect_timeout(&address, METADATA_TIMEOUT) {
        Ok(_) => Ok(()),
        Err(_) => Err(StoreError::NoCredentials { place: place.clone() }),
    }
}
