//! Which request is which.

use hyper::{Method, StatusCode};

use super::reply::Refusal;

const READ: &str = "GET, POST";
const GET: &str = "GET";
const POST: &str = "POST";

/// A request that exists. Whether its task and limit do is another question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    Info,
    Log,
    Reset,
    Control { task: &'a str, limit: Option<&'a str> },
    Exec,
    Health,
    Ready,
    Metrics,
}

impl<'a> Route<'a> {
    /// Finds the route by path, taken as it is: nothing is percent-decoded, for no route needs it.
    ///
    /// # Errors
    /// 404 for an unknown path, 405 for a method that it does not have.
    pub(super) fn find(method: &Method, path: &'a str) -> Result<Self, Refusal> {
        let (route, allow) = match path {
            "/info" => (Self::Info, READ),
            "/log" => (Self::Log, READ),
            "/reset" => (Self::Reset, POST),
            "/exec" => (Self::Exec, POST),
            "/healthz" => (Self::Health, GET),
            "/readyz" => (Self::Ready, GET),
            "/metrics" => (Self::Metrics, GET),
            _ => {
                (Self::control(path).ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "there is nothing here"))?, POST)
            }
        };
        if allow.split(", ").any(|allowed| allowed == method.as_str()) {
            Ok(route)
        } else {
            Err(Refusal::method(allow))
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
    fn paths_lead_where_they_say() {
        let control = |task, limit| Route::Control { task, limit };
        let routes = [
            ("/control/on", control("on", None)),
            ("/control/on/60", control("on", Some("60"))),
            ("/control/%6Fn", control("%6Fn", None)),
            ("/exec", Route::Exec),
            ("/info", Route::Info),
        ];
        for (path, route) in routes {
            assert_eq!(Route::find(&Method::POST, path).ok(), Some(route), "{path}");
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
            assert_eq!(Route::find(&Method::POST, path).ok(), None, "{path}");
        }
    }
}
