//! The page.

use std::{fmt::Write, fs, path::Path};

use ochopod_sdk::{Cluster, Result};

/// Writes the page into the directory of the pod's nginx. A request gets the old page or the new one.
pub(crate) fn write(directory: &Path, cluster: &Cluster) -> Result<()> {
    let (page, new) = (directory.join("html/index.html"), directory.join("html/.new"));
    fs::write(&new, render(cluster)?)?;
    Ok(fs::rename(new, page)?)
}

fn render(cluster: &Cluster) -> Result<String> {
    let me = cluster.me()?;
    let name = format!("{}.{}", cluster.namespace(), cluster.name());
    let title = me.settings.get("web_title").unwrap_or(&name);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{0}</title></head>\n<body>\n\
         <h1>{0}</h1>\n<p>Pod #{1} at {2}, one of {3} in {4}.</p>\n<ul>\n",
        escaped(title),
        me.seq,
        escaped(&me.ip),
        cluster.size(),
        escaped(&name)
    );
    for pod in cluster.by_seq() {
        writeln!(page, "<li>#{} at {} on {}</li>", pod.seq, escaped(&pod.ip), escaped(&pod.node))?;
    }
    page.push_str("</ul>\n</body>\n</html>\n");
    Ok(page)
}

/// Returns text without characters that have a meaning in HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ochopod_sdk::{
        Pod,
        testing::{cluster, pod},
    };

    #[test]
    fn page_lists_all_pods_in_the_order_of_seq() {
        let page = render(&cluster([pod(7), pod(3)]).view_of(7)).unwrap();
        assert!(page.contains("<h1>test.test</h1>\n<p>Pod #7 at 127.0.0.9, one of 2 in test.test.</p>"), "{page}");
        assert!(page.contains("<li>#3 at 127.0.0.5 on local</li>\n<li>#7 at 127.0.0.9 on local</li>\n</ul>"), "{page}");
    }

    #[test]
    fn text_of_the_operator_is_no_html() {
        let titled = Pod { settings: [("web_title".into(), "<script> & \"more\"".into())].into(), ..pod(0) };
        let page = render(&cluster([titled]).view_of(0)).unwrap();
        assert!(page.contains("<h1>&lt;script&gt; &amp; &quot;more&quot;</h1>"), "{page}");
    }
}
