//! Functions of WASI that the standard library does not offer: requests and pollables.

#[cfg(target_family = "wasm")]
pub(crate) use guest::{pollable, request, send};
#[cfg(not(target_family = "wasm"))]
pub(crate) use native::{pollable, request, send};

#[cfg(target_family = "wasm")]
mod guest {
    use ochopod_sdk::{Result, bail, info};
    use wasip2::{
        clocks::monotonic_clock,
        http::{
            outgoing_handler,
            types::{Fields, FutureIncomingResponse, OutgoingRequest, Scheme},
        },
        io::poll::Pollable,
    };

    /// Returns a pollable that is never ready.
    pub(crate) fn pollable() -> Result<Pollable> {
        Ok(monotonic_clock::subscribe_duration(u64::MAX / 2))
    }

    /// Sends a request and waits for the start of the response.
    pub(crate) fn request(address: &str) -> Result<()> {
        let answer = send(address)?;
        answer.subscribe().block();
        match answer.get() {
            Some(Ok(Ok(response))) => info!("{address} answered {}", response.status()),
            Some(Ok(Err(error))) => bail!("{address} did not answer: {error:?}"),
            _ => bail!("{address} did not answer"),
        }
        Ok(())
    }

    /// Sends a request.
    pub(crate) fn send(address: &str) -> Result<FutureIncomingResponse> {
        let request = OutgoingRequest::new(Fields::new());
        let set = [
            request.set_scheme(Some(&Scheme::Http)),
            request.set_authority(Some(address)),
            request.set_path_with_query(Some("/")),
        ];
        if set.contains(&Err(())) {
            bail!("invalid server address {address:?}");
        }
        match outgoing_handler::handle(request, None) {
            Ok(answer) => Ok(answer),
            Err(error) => bail!("cannot request {address}: {error:?}"),
        }
    }
}

/// Not available outside a sandbox.
#[cfg(not(target_family = "wasm"))]
mod native {
    use ochopod_sdk::{Result, bail};

    pub(crate) fn pollable() -> Result<()> {
        bail!("this is for guests")
    }

    pub(crate) fn request(address: &str) -> Result<()> {
        send(address)
    }

    pub(crate) fn send(address: &str) -> Result<()> {
        bail!("{address}: only guests send requests")
    }
}
