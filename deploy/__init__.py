"""What runs regard elsewhere: images, compose files, Prometheus, Grafana, Envoy, Kubernetes."""
