//! Which kinds the cluster has, and in which version.
//!
//! Kubernetes' own are always there; Gateway API's and Tulle's are when somebody has installed
//! their CRDs, and they may come and go while the control plane runs.

use std::collections::BTreeMap;
use std::time::Duration;

use config::ObjectKind;
use kube::Client;
use kube::discovery::ApiResource;
use tokio::time::timeout;

/// An answer of the API server is waited for as long.
const ANSWER: Duration = Duration::from_secs(10);

/// The kinds that there are, each in the version that Tulle likes best of those that are served.
pub(super) type Kinds = BTreeMap<ObjectKind, ApiResource>;

/// Asks the API server; an error says nothing about what there is.
pub(super) async fn discover(client: &Client) -> Result<Kinds, String> {
    let asking = async {
        let groups = client.list_api_groups().await?.groups;
        let mut served = BTreeMap::new();
        for group in &groups {
            if !ObjectKind::ALL
                .iter()
                .any(|kind| kind.group() == group.name)
            {
                continue;
            }
            for version in &group.versions {
                let name = &version.group_version;
                let list = client.list_api_group_resources(name).await?;
                served.insert(name.clone(), names(&list));
            }
        }
        let core = client.list_core_api_resources("v1").await?;
        served.insert("v1".to_owned(), names(&core));
        Ok(choose(&served))
    };
    let answer: Result<kube::Result<Kinds>, _> = timeout(ANSWER, asking).await;
    match answer {
        Ok(Ok(kinds)) => Ok(kinds),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", ANSWER.as_secs())),
    }
}

/// Kinds and plurals of a version, without subresources.
fn names(list: &k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList) -> Named {
    list.resources
        .iter()
        .filter(|resource| !resource.name.contains('/'))
        .map(|resource| (resource.kind.clone(), resource.name.clone()))
        .collect()
}

/// From kinds to plurals.
type Named = BTreeMap<String, String>;

fn choose(served: &BTreeMap<String, Named>) -> Kinds {
    let mut kinds = Kinds::new();
    for kind in ObjectKind::ALL {
        let found = kind.api_versions().find_map(|api_version| {
            let plural = served.get(&api_version)?.get(kind.as_str())?.clone();
            Some((api_version, plural))
        });
        if let Some((api_version, plural)) = found {
            let version = api_version
                .rsplit_once('/')
                .map_or(&*api_version, |(_, v)| v);
            let resource = ApiResource {
                group: kind.group().to_owned(),
                version: version.to_owned(),
                kind: kind.as_str().to_owned(),
                plural,
                api_version,
            };
            kinds.insert(kind, resource);
        }
    }
    kinds
}

#[cfg(test)]
mod tests {
    use config::kind::TULLE_GROUP;

    use super::*;

    fn served(versions: &[(&str, &[&str])]) -> BTreeMap<String, Named> {
        let plural = |kind: &&str| ((*kind).to_owned(), format!("{}s", kind.to_lowercase()));
        let named = |kinds: &[&str]| kinds.iter().map(plural).collect();
        versions
            .iter()
            .map(|(version, kinds)| ((*version).to_owned(), named(kinds)))
            .collect()
    }

    #[test]
    fn the_crds_of_tulles_own_kinds_name_them_as_they_are() {
        let crds = include_str!("../../../../deploy/kubernetes/crds.yaml");
        let documents: Vec<&str> = crds.split("\n---\n").collect();
        let own = ObjectKind::ALL.into_iter();
        let own: Vec<ObjectKind> = own.filter(|k| k.group() == TULLE_GROUP).collect();
        assert_eq!(documents.len(), own.len());
        for kind in own {
            let name = format!("name: {}.{TULLE_GROUP}\n", kind.plural());
            let crd = documents.iter().find(|text| text.contains(&name));
            let crd = crd.unwrap_or_else(|| panic!("no CRD of {kind}"));
            let scope = if kind.namespaced() {
                "Namespaced"
            } else {
                "Cluster"
            };
            for text in [
                format!("kind: {kind}, plural: {}", kind.plural()),
                format!("shortNames: [{}]", kind.short_names().join(", ")),
                format!("scope: {scope}\n"),
                "- name: v1alpha1\n".to_owned(),
                "subresources: {status: {}}".to_owned(),
            ] {
                assert!(crd.contains(&text), "{kind}: no \"{text}\"");
            }
            assert_eq!(kind.api_version(), format!("{TULLE_GROUP}/v1alpha1"));
        }
    }

    #[test]
    fn of_several_versions_the_preferred_one_is_watched_and_an_old_one_where_there_is_no_other() {
        let kinds = choose(&served(&[
            ("v1", &["Service", "Endpoints"]),
            ("gateway.networking.k8s.io/v1", &["HTTPRoute"]),
            ("gateway.networking.k8s.io/v1beta1", &["HTTPRoute"]),
            ("gateway.networking.k8s.io/v1alpha2", &["TLSRoute"]),
            ("example.com/v1", &["GRPCRoute"]),
        ]));
        let all: Vec<String> = kinds
            .values()
            .map(|r| format!("{} {} {}", r.api_version, r.version, r.plural))
            .collect();
        assert_eq!(
            all,
            [
                "v1 v1 services",
                "gateway.networking.k8s.io/v1 v1 httproutes",
                "gateway.networking.k8s.io/v1alpha2 v1alpha2 tlsroutes",
            ]
        );
    }
}
