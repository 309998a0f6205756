//! Sections of configuration files.

/// Defines a section of a configuration file: a documented struct, its defaults, and the list of its keys.
#[macro_export]
macro_rules! section {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $kind:ty = $default:expr,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        pub struct $name { $($(#[$field_meta])* pub $field: $kind,)* }

        impl Default for $name {
            fn default() -> Self {
                $name { $($field: $default,)* }
            }
        }

        impl $name {
            /// Every key of the section.
            pub const KEYS: &'static [&'static str] = &[$(stringify!($field),)*];
        }
    };
}
