//! A plugin of another version: its only export is `ochopod:pod/lifecycle@0.2.0`.
#![cfg(target_family = "wasm")]
#![allow(unsafe_code, missing_docs, unreachable_pub, clippy::pedantic, reason = "generated")]

wit_bindgen::generate!({
    inline: "
        package ochopod:pod@0.2.0;

        interface lifecycle {
            settings: func() -> string;
        }

        world plugin {
            export lifecycle;
        }
    ",
});

struct Later;

impl exports::ochopod::pod::lifecycle::Guest for Later {
    fn settings() -> String {
        String::new()
    }
}

export!(Later);
