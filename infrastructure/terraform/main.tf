# One stack of the Precision Background Remover, from a template that `make package` has written to S3.
# docs/how-to/terraform.md

variable "name" {
  type        = string
  description = "Name of the CloudFormation stack. The names of its state machines, functions and alarms begin with it."
  default     = "precision-background-remover"
}

variable "template_url" {
  type        = string
  description = "URL of the packaged template in S3, as `make package` prints it. Its images are in the Region of the stack."

  validation {
    condition     = can(regex("^https://.+\\.amazonaws\\.com(\\.cn)?/.+$", var.template_url))
    error_message = "template_url must be the https:// URL of an object in S3. `make package` prints it."
  }
}

variable "tags" {
  type        = map(string)
  description = "Tags of the stack. CloudFormation passes them to nested stacks and to all resources that have tags."
  default     = {}
}

variable "role_arn" {
  type        = string
  description = "ARN of the role that CloudFormation uses to change the stack. null means the role that runs Terraform."
  default     = null
}

resource "aws_cloudformation_stack" "this" {
  name         = var.name
  template_url = var.template_url
  parameters   = local.parameters
  capabilities = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]
  iam_role_arn = var.role_arn
  on_failure   = "ROLLBACK"
  tags         = var.tags

  timeouts {
    # A gradual deployment takes as long as deployment_interval and deployment_percentage say, besides.
    create = "2h"
    update = "4h"
    delete = "2h"
  }
}
