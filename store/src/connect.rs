//! A bucket's client, from the usual variables of its cloud.

use crate::error::{StoreError, unusable};
use crate::place::{Place, Scheme};
use crate::settings::{allows_http, check_azure, check_google, check_s3};
use crate::traffic::CountingConnector;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
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

/// A client of one bucket.
pub(crate) struct Client {
    pub(crate) store: Arc<dyn ObjectStore>,
    /// The same one where it is S3, for what only S3 has.
    pub(crate) s3: Option<AmazonS3>,
}

/// Makes the client of a place's bucket. No request is made yet.
pub(crate) fn connect(place: &Place) -> Result<Client, StoreError> {
    let plain = |store: Arc<dyn ObjectStore>| Client { store, s3: None };
    let refused = |error: object_store::Error| unusable(place, &error);
    // The builders have these methods by the same names, and no trait.
    macro_rules! built {
        ($builder:expr) => {
            $builder
                .with_client_options(options(place))
                .with_retry(retries())
                .with_http_connector(CountingConnector { root: place.root().to_owned() })
                .build()
                .map_err(refused)
        };
    }
    match place.scheme() {
        Scheme::S3 => {
            let mut builder = AmazonS3Builder::from_env();
            check_s3(place, &builder)?;
            if builder.get_config_value(&AmazonS3ConfigKey::Region).is_none()
                && let Ok(region) = std::env::var("AWS_DEFAULT_REGION")
            {
                builder = builder.with_region(region);
            }
            let s3 = built!(builder.with_bucket_name(place.bucket()))?;
            Ok(Client { store: Arc::new(s3.clone()), s3: Some(s3) })
        }
        Scheme::Gs => {
            let builder = GoogleCloudStorageBuilder::from_env();
            check_google(place, &builder)?;
            Ok(plain(Arc::new(built!(builder.with_url(place.root()))?)))
        }
        Scheme::Az => {
            let builder = MicrosoftAzureBuilder::from_env();
            check_azure(place, &builder)?;
            Ok(plain(Arc::new(built!(builder.with_url(place.root()))?)))
        }
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

fn retries() -> RetryConfig {
    RetryConfig {
        // The library adds jitter: each wait is drawn between the first one and three times the last.
        backoff: BackoffConfig { init_backoff: BACKOFF_FIRST, max_backoff: BACKOFF_MAX, base: 3.0 },
        max_retries: RETRIES_MAX,
        retry_timeout: RETRY_TIMEOUT,
    }
}
