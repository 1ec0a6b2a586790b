"""The embedded provider: Kubernetes as plain processes in namespaces of this machine, with no container engine.

A cluster is found, and taken down, by its name alone: every namespace, mount, cgroup and link that it uses follows from
the name (layout.py), so nothing has to be remembered for it to be cleaned up.

======================  =============================================================================================
layout.py               the names, folders and addresses of a cluster: pure
host.py                 running programs, reading cgroups, mounts and processes
namespaces.py           network and mount namespaces, bridge, links and routes
daemons.py              processes that outlive this one: start, find, stop, logs
certificates.py         the certificate authority and every certificate
controlplane.py node.py command lines and configuration of the programs: pure
api.py                  the few requests made to the API server
addons/                 cluster DNS, metrics, volumes, S3, PostgreSQL, and node capacity
cluster.py              up, status, load-image, logs: the order of things
teardown.py             down
======================  =============================================================================================
"""
