# What `pmm-callgoose setup pmm` makes, for those who keep PMM's alerting in
# Terraform. Use one of the two: setup pmm refuses what somebody else provisions.
#
#   export GRAFANA_URL=https://PMM/graph GRAFANA_AUTH=glsa_...   # a service account, role Admin
#   export TF_VAR_ingest_token="$(cat ingest-token)"
#   terraform init && terraform plan
#
# The state holds the ingest token: keep it where secrets may be kept.
terraform {
  required_providers {
    grafana = { source = "grafana/grafana", version = ">= 3.0" }
  }
}

variable "ingest_token" {
  description = "The bearer token that the forwarder asks for (ingest-token)."
  type        = string
  sensitive   = true
}

variable "webhook_url" {
  description = "Where PMM finds the forwarder."
  type        = string
  default     = "http://pmm-callgoose:4667/v1/webhook"
}

variable "default_contact_point" {
  description = "Who is notified today: what the root policy names in PMM."
  type        = string
  default     = "grafana-default-email"
}

resource "grafana_contact_point" "callgoose" {
  name = "Callgoose SQIBS"

  webhook {
    url                       = var.webhook_url
    http_method               = "POST"
    max_alerts                = 0 # anything else loses alerts
    authorization_scheme      = "Bearer"
    authorization_credentials = var.ingest_token
    disable_resolve_message   = false # recoveries must be sent
  }
}

# There is one tree of policies, and this resource is all of it: add the routes
# that are in PMM today (Alerting > Notification policies), also those that PMM
# made itself, or they are gone. `terraform import grafana_notification_policy.all policy`
# reads them first.
resource "grafana_notification_policy" "all" {
  contact_point = var.default_contact_point
  group_by      = ["grafana_folder", "alertname"]

  policy { # every alert to the forwarder, and on to the routes below
    contact_point   = grafana_contact_point.callgoose.name
    continue        = true
    group_by        = ["grafana_folder", "alertname"]
    group_wait      = "10s"
    group_interval  = "1m" # PMM does not retry a failed webhook before it
    repeat_interval = "15m"
  }

  policy { # a route that takes all silences the default policy: this gives it back
    contact_point = var.default_contact_point
    group_by      = ["grafana_folder", "alertname"]
  }
}
