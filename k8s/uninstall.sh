#!/bin/sh
# Deletes a namespace of this project: sh k8s/uninstall.sh NAMESPACE [--yes]
#
# The order matters. Before a cluster with fault tolerance may go, KubeRay removes its tables from Redis, with a Job. No
# Job can start in a namespace that is being deleted, so the cluster, and with it the namespace, would stay forever.
set -eu
namespace=${1:?usage: uninstall.sh NAMESPACE [--yes]}
patience=180s # for the drivers to save their work, and for KubeRay to clean up

phase=$(kubectl get namespace "$namespace" --ignore-not-found -o 'jsonpath={.status.phase}')
if [ -z "$phase" ]; then
  echo "There is no namespace $namespace."
  exit 0
fi
if [ "$phase" = Terminating ]; then
  patience=10s # no Job can start any more
fi
if [ "${2:-}" != --yes ]; then
  echo "This deletes the namespace $namespace with all runs, caches and results in it:"
  kubectl -n "$namespace" get persistentvolumeclaims -o name
  printf 'Type the name of the namespace to go on: '
  read -r typed
  if [ "$typed" != "$namespace" ]; then
    echo "Nothing was deleted."
    exit 1
  fi
fi

# What starts others comes first.
for kind in cronjobs.batch raycronjobs.ray.io rayjobs.ray.io rayservices.ray.io rayclusters.ray.io; do
  if ! objects=$(kubectl -n "$namespace" get "$kind" -o name 2>/dev/null); then
    reason=$(kubectl -n "$namespace" get "$kind" -o name 2>&1 >/dev/null) || true
    case "$reason" in
      *"have a resource type"*) continue ;; # not every KubeRay has every kind
      *)
        echo "$kind cannot be listed, so the namespace stays: $reason" >&2
        exit 1
        ;;
    esac
  fi
  for object in $objects; do
    kubectl -n "$namespace" delete "$object" --ignore-not-found --timeout="$patience" && continue
    echo "$object does not end, so its finalizers are removed."
    kubectl -n "$namespace" patch "$object" --type=merge -p '{"metadata": {"finalizers": null}}' || true
  done
done
# With Redis, the storage and the rest.
kubectl delete namespace "$namespace" --ignore-not-found --timeout=300s
