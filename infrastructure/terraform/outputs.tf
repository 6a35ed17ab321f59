# Generated from template.yaml: make reference

output "uploads_bucket" {
  description = "Bucket for source images"
  value       = aws_cloudformation_stack.this.outputs["UploadsBucket"]
}

output "results_bucket" {
  description = "Bucket for results (results/) and failure reports (failed/)"
  value       = aws_cloudformation_stack.this.outputs["ResultsBucket"]
}

output "results_replica_bucket" {
  description = "Bucket in another Region with replicas of results (null if the stack has none)"
  value       = lookup(aws_cloudformation_stack.this.outputs, "ResultsReplicaBucket", null)
}

output "work_bucket" {
  description = "Bucket for masks, alpha mattes, and cached results"
  value       = aws_cloudformation_stack.this.outputs["WorkBucket"]
}

output "access_logs_bucket" {
  description = "Bucket for access logs of the other buckets and of the web page"
  value       = aws_cloudformation_stack.this.outputs["AccessLogsBucket"]
}

output "cache_table" {
  description = "Result cache, one item per cache key"
  value       = aws_cloudformation_stack.this.outputs["CacheTable"]
}

output "reviews_table" {
  description = "Reviews of doubtful results, one item per cut-out"
  value       = aws_cloudformation_stack.this.outputs["ReviewsTable"]
}

output "state_machine_arn" {
  description = "State machine that processes uploads"
  value       = aws_cloudformation_stack.this.outputs["StateMachineArn"]
}

output "state_machine_alias" {
  description = "Alias to start executions of the state machine with, instead of its ARN"
  value       = aws_cloudformation_stack.this.outputs["StateMachineAlias"]
}

output "bulk_machine_arn" {
  description = "State machine that processes bulk runs"
  value       = aws_cloudformation_stack.this.outputs["BulkMachineArn"]
}

output "bulk_machine_alias" {
  description = "Alias to start bulk runs with"
  value       = aws_cloudformation_stack.this.outputs["BulkMachineAlias"]
}

output "queue_url" {
  description = "Queue that the ECS worker polls"
  value       = aws_cloudformation_stack.this.outputs["QueueUrl"]
}

output "segmentation_dead_letter_queue_url" {
  description = "Segmentation requests that no worker completed"
  value       = aws_cloudformation_stack.this.outputs["SegmentationDeadLetterQueueUrl"]
}

output "reconcile_dead_letter_queue_url" {
  description = "Execution status events that the reconcile function could not process"
  value       = aws_cloudformation_stack.this.outputs["ReconcileDeadLetterQueueUrl"]
}

output "reconcile_function_arn" {
  description = "Function that reports executions stopped from outside"
  value       = aws_cloudformation_stack.this.outputs["ReconcileFunctionArn"]
}

output "digest_function_arn" {
  description = "Function that publishes the digest of failed images (null if the stack has none)"
  value       = lookup(aws_cloudformation_stack.this.outputs, "DigestFunctionArn", null)
}

output "sweep_function_arn" {
  description = "Function that starts uploads without outcome"
  value       = aws_cloudformation_stack.this.outputs["SweepFunctionArn"]
}

output "uploads_dead_letter_queue_url" {
  description = "Upload events that EventBridge could not deliver"
  value       = aws_cloudformation_stack.this.outputs["UploadsDeadLetterQueueUrl"]
}

output "api_url" {
  description = "Base URL of the HTTP API"
  value       = aws_cloudformation_stack.this.outputs["ApiUrl"]
}

output "api_regional_url" {
  description = "Base URL of the HTTP API in this Region, for requests with IAM signatures (null if the stack has none)"
  value       = lookup(aws_cloudformation_stack.this.outputs, "ApiRegionalUrl", null)
}

output "api_domain_target" {
  description = "Target of the record of ApiDomain, if Route 53 does not have it (null if the stack has none)"
  value       = lookup(aws_cloudformation_stack.this.outputs, "ApiDomainTarget", null)
}

output "api_regional_target" {
  description = "Target of the record of REGION.ApiDomain, if Route 53 does not have it (null if the stack has none)"
  value       = lookup(aws_cloudformation_stack.this.outputs, "ApiRegionalTarget", null)
}

output "api_health_check_id" {
  description = "Health check of the API in this Region, in Route 53 (null if the stack has none)"
  value       = lookup(aws_cloudformation_stack.this.outputs, "ApiHealthCheckId", null)
}

output "api_keys_table" {
  description = "API keys, one item per key with a hash of its secret"
  value       = aws_cloudformation_stack.this.outputs["ApiKeysTable"]
}

output "api_usage_table" {
  description = "API usage per caller"
  value       = aws_cloudformation_stack.this.outputs["ApiUsageTable"]
}

output "api_jobs_table" {
  description = "API jobs, one item per job"
  value       = aws_cloudformation_stack.this.outputs["ApiJobsTable"]
}

output "webhook_machine_arn" {
  description = "State machine that delivers webhooks"
  value       = aws_cloudformation_stack.this.outputs["WebhookMachineArn"]
}

output "webhook_machine_alias" {
  description = "Alias to start deliveries of webhooks with"
  value       = aws_cloudformation_stack.this.outputs["WebhookMachineAlias"]
}

output "webhooks_dead_letter_queue_url" {
  description = "Webhooks that could not be delivered"
  value       = aws_cloudformation_stack.this.outputs["WebhooksDeadLetterQueueUrl"]
}

output "webhook_secret_arn" {
  description = "Secret from which the signing secret of each caller is derived"
  value       = aws_cloudformation_stack.this.outputs["WebhookSecretArn"]
}

output "failures_topic_arn" {
  description = "SNS topic that receives failure reports and the summaries of bulk runs"
  value       = aws_cloudformation_stack.this.outputs["FailuresTopicArn"]
}

output "alerts_topic_arn" {
  description = "SNS topic that receives alarms, budget alerts, and digests of failed images (null if the stack has none)"
  value       = lookup(aws_cloudformation_stack.this.outputs, "AlertsTopicArn", null)
}

output "dashboard_name" {
  description = "Name of the CloudWatch dashboard (null if the stack has none)"
  value       = lookup(aws_cloudformation_stack.this.outputs, "DashboardName", null)
}

output "dashboard_url" {
  description = "Address of the dashboard in the console. Not in China and GovCloud (null if the stack has none)"
  value       = lookup(aws_cloudformation_stack.this.outputs, "DashboardUrl", null)
}

output "worker_cluster_name" {
  description = "ECS cluster of the worker (null if the stack has none)"
  value       = lookup(aws_cloudformation_stack.this.outputs, "WorkerClusterName", null)
}

output "worker_service_name" {
  description = "ECS service of the worker (null if the stack has none)"
  value       = lookup(aws_cloudformation_stack.this.outputs, "WorkerServiceName", null)
}

output "sagemaker_endpoint" {
  description = "Name of the endpoint. It changes with SageMakerMode and SageMakerInstanceType. (null if the stack has none)"
  value       = lookup(aws_cloudformation_stack.this.outputs, "SageMakerEndpoint", null)
}

output "sagemaker_model_name" {
  description = "SageMaker model of the endpoint, for Batch Transform (null if the stack has none)"
  value       = lookup(aws_cloudformation_stack.this.outputs, "SageMakerModelName", null)
}

output "web_url" {
  description = "Address of the web page (null if the stack has none)"
  value       = lookup(aws_cloudformation_stack.this.outputs, "WebUrl", null)
}

output "web_callback_url" {
  description = "Callback URL of the web page, to register with the OpenID Connect provider (null if the stack has none)"
  value       = lookup(aws_cloudformation_stack.this.outputs, "WebCallbackUrl", null)
}

output "web_load_balancer" {
  description = "DNS name of the load balancer of the web page (null if the stack has none)"
  value       = lookup(aws_cloudformation_stack.this.outputs, "WebLoadBalancer", null)
}
