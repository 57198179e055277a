//! Functions of WASI that the standard library does not offer: requests and pollables.

#[cfg(target_family = "wasm")]
pub(crate) use guest::{body, pollable, request, send};
#[cfg(not(target_family = "wasm"))]
pub(crate) use native::{body, pollable, request, send};

#[cfg(target_family = "wasm")]
mod guest {
    use ochopod_sdk::{Result, bail, info};
    use wasip2::{
        clocks::monotonic_clock,
        http::{
            outgoing_handler,
            types::{Fields, FutureIncomingResponse, OutgoingBody, OutgoingRequest, Scheme},
        },
        io::poll::Pollable,
    };

    /// Returns a pollable that is never ready.
    pub(crate) fn pollable() -> Result<Pollable> {
        Ok(monotonic_clock::subscribe_duration(u64::MAX / 2))
    }

    /// Returns a request that is not sent, with as much of a body as the host accepts, at most `limit` bytes.
    pub(crate) fn body(limit: usize) -> Result<OutgoingRequest> {
        let mut written = 0;
        let request = OutgoingRequest::new(Fields::new());
        let Ok(body) = request.body() else { bail!("no body") };
        let Ok(stream) = body.write() else { bail!("no stream") };
        while let Ok(free @ 1..) = stream.check_write() {
            let part = vec![b'x'; usize::try_from(free).unwrap_or(usize::MAX).min(1 << 20)];
            if stream.write(&part).is_err() {
                break;
            }
            written += part.len();
            if written > limit {
                bail!("the host holds more than {limit} bytes of a body");
            }
        }
        drop(stream);
        match OutgoingBody::finish(body, None) {
            Ok(()) => Ok(request),
            Err(error) => bail!("cannot finish the body: {error:?}"),
        }
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

    pub(crate) fn body(_: usize) -> Result<()> {
        bail!("this is for guests")
    }

    pub(crate) fn request(address: &str) -> Result<()> {
        send(address)
    }

    pub(crate) fn send(address: &str) -> Result<()> {
        bail!("{address}: only guests send requests")
    }
}
