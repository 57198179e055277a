//! Routes of the API.

use hyper::{Method, StatusCode};

use super::reply::ApiError;

/// `HEAD` is allowed wherever `GET` is, `OPTIONS` everywhere.
const READ: &str = "GET, HEAD, OPTIONS, POST";
const GET: &str = "GET, HEAD, OPTIONS";
const POST: &str = "OPTIONS, POST";

/// Route of a request. Its task and limit are not validated yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    Info,
    Log,
    Reset,
    Reload,
    Control {
        task: &'a str,
        limit: Option<&'a str>,
    },
    Exec,
    Health,
    Ready,
    Metrics,
    /// `OPTIONS` of any path that exists, with the methods that it allows.
    Options(&'static str),
}

impl<'a> Route<'a> {
    /// Returns the route of a path, which is not percent-decoded, because no route needs it.
    ///
    /// # Errors
    /// 404 for an unknown path, 405 for a method that it does not have.
    pub(super) fn parse(method: &Method, path: &'a str) -> Result<Self, ApiError> {
        let (route, allow) = match path {
            "/info" => (Self::Info, READ),
            "/log" => (Self::Log, READ),
            "/reset" => (Self::Reset, POST),
            "/reload" => (Self::Reload, POST),
            "/exec" => (Self::Exec, POST),
            "/healthz" => (Self::Health, GET),
            "/readyz" => (Self::Ready, GET),
            "/metrics" => (Self::Metrics, GET),
            // The server as a whole.
            "*" if method == Method::OPTIONS => (Self::Options(READ), READ),
            _ => (Self::control(path).ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "unknown path"))?, POST),
        };
        if method == Method::OPTIONS {
            Ok(Self::Options(allow))
        } else if allow.split(", ").any(|allowed| allowed == method.as_str()) {
            Ok(route)
        } else {
            Err(ApiError::method(allow))
        }
    }

    fn control(path: &'a str) -> Option<Self> {
        let rest = path.strip_prefix("/control/")?;
        let (task, limit) = rest.split_once('/').map_or((rest, None), |(task, limit)| (task, Some(limit)));
        let complete = !task.is_empty() && limit.is_none_or(|limit| !limit.is_empty() && !limit.contains('/'));
        complete.then_some(Self::Control { task, limit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_selects_its_route() {
        let control = |task, limit| Route::Control { task, limit };
        let routes = [
            ("/control/on", control("on", None)),
            ("/control/on/60", control("on", Some("60"))),
            ("/control/%6Fn", control("%6Fn", None)),
            ("/exec", Route::Exec),
            ("/reload", Route::Reload),
            ("/info", Route::Info),
        ];
        for (path, route) in routes {
            assert_eq!(Route::parse(&Method::POST, path).ok(), Some(route), "{path}");
        }
        for path in [
            "",
            "*",
            "/",
            "/control",
            "/control/",
            "/control//60",
            "/control/on/",
            "/control/on/6/0",
            "/info/",
            "/Info",
        ] {
            assert_eq!(Route::parse(&Method::POST, path).ok(), None, "{path}");
        }
    }
}
