//! Bindings that wit-bindgen generates from `wit/`. Public for the sake of `export!` only.
#![allow(warnings, unsafe_code, clippy::all, clippy::pedantic, clippy::restriction)]

wit_bindgen::generate!({
    world: "plugin",
    path: "../../wit",
    pub_export_macro: true,
    export_macro_name: "__export_ochopod_plugin",
    default_bindings_module: "::ochopod_sdk::bindings",
});
