# Generated from template.yaml: make reference

variable "segmentation_host" {
  type        = string
  description = "Host that runs segmentation for uploads that name none. Lambda is also the fallback when another host fails."
  default     = "lambda"
  nullable    = false

  validation {
    condition     = contains(["lambda", "ecs", "sagemaker"], var.segmentation_host)
    error_message = "segmentation_host must be one of lambda, ecs, sagemaker."
  }
}

variable "default_model" {
  type        = string
  description = "Segmentation model for uploads that name none. Included in the container image. The models with 1024 px input need a larger SegmentMemory."
  default     = "u2netp"
  nullable    = false

  validation {
    condition     = length(var.default_model) <= 63
    error_message = "default_model must have at most 63 characters."
  }
}

variable "segment_memory" {
  type        = number
  description = "Memory of the segment function in MB. Its CPU share grows with it. The birefnet and bria models need 8192."
  default     = 3008
  nullable    = false

  validation {
    condition     = contains([3008, 4096, 6144, 8192, 10240], var.segment_memory)
    error_message = "segment_memory must be one of 3008, 4096, 6144, 8192, 10240."
  }
}

variable "refine_memory" {
  type        = number
  description = "Memory of the refine function in MB. Its CPU share grows with it. It limits the image size, see docs/reference/template.md."
  default     = 2048
  nullable    = false

  validation {
    condition     = contains([2048, 3008, 4096, 6144, 8192, 10240], var.refine_memory)
    error_message = "refine_memory must be one of 2048, 3008, 4096, 6144, 8192, 10240."
  }
}

variable "encode_memory" {
  type        = number
  description = "Memory of the encode function in MB. Its CPU share grows with it. It limits the image size, see docs/reference/template.md."
  default     = 3008
  nullable    = false

  validation {
    condition     = contains([2048, 3008, 4096, 6144, 8192, 10240], var.encode_memory)
    error_message = "encode_memory must be one of 2048, 3008, 4096, 6144, 8192, 10240."
  }
}

variable "escalate_on_review" {
  type        = bool
  description = "Whether to segment an image again with EscalationModel when its mask is doubtful."
  default     = false
  nullable    = false
}

variable "escalation_model" {
  type        = string
  description = "Model for the second attempt if EscalateOnReview is true."
  default     = "birefnet-general"
  nullable    = false

  validation {
    condition     = length(var.escalation_model) <= 63
    error_message = "escalation_model must have at most 63 characters."
  }
}

variable "model_directory" {
  type        = string
  description = "Directories with model weights in the container image, separated by colons."
  default     = "/opt/models"
  nullable    = false

  validation {
    condition     = length(var.model_directory) <= 500
    error_message = "model_directory must have at most 500 characters."
  }
}

variable "model_mirror" {
  type        = string
  description = "Base URL of a mirror with the weight files. Empty means the rembg releases."
  default     = ""
  nullable    = false

  validation {
    condition     = length(var.model_mirror) <= 400
    error_message = "model_mirror must have at most 400 characters."
  }
}

variable "model_bucket" {
  type        = string
  description = "Bucket with the weight files that the image does not include. Takes precedence over ModelMirror. Empty means none."
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", var.model_bucket))
    error_message = "model_bucket must match ^$|^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$."
  }
}

variable "custom_models" {
  type        = string
  description = "JSON list of custom models, see docs/how-to/models.md. Empty means none."
  default     = ""
  nullable    = false

  validation {
    condition     = length(var.custom_models) <= 1700
    error_message = "custom_models must have at most 1700 characters."
  }
}

variable "presets" {
  type        = string
  description = "JSON object of the stack's own presets, see docs/how-to/presets.md. Empty means none."
  default     = ""
  nullable    = false

  validation {
    condition     = length(var.presets) <= 1000
    error_message = "presets must have at most 1000 characters."
  }
}

variable "worker_image_uri" {
  type        = string
  description = "Container image of the ECS worker, in ECR in this Region. SegmentationCapacity=GPU and GPU_SPOT need the gpu flavor. Empty means no worker."
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^[0-9]{12}\\.dkr\\.ecr\\.[a-z0-9-]+\\.amazonaws\\.com(\\.cn)?/.+$", var.worker_image_uri))
    error_message = "worker_image_uri must match ^$|^[0-9]{12}\\.dkr\\.ecr\\.[a-z0-9-]+\\.amazonaws\\.com(\\.cn)?/.+$."
  }
}

variable "segmentation_capacity" {
  type        = string
  description = "Capacity that runs the worker. GPU means EC2 instances, because Fargate has no GPUs. Spot costs less and can be interrupted at any time."
  default     = "FARGATE"
  nullable    = false

  validation {
    condition     = contains(["FARGATE", "FARGATE_SPOT", "GPU", "GPU_SPOT"], var.segmentation_capacity)
    error_message = "segmentation_capacity must be one of FARGATE, FARGATE_SPOT, GPU, GPU_SPOT."
  }
}

variable "gpu_instance_type" {
  type        = string
  description = "EC2 instance type for SegmentationCapacity=GPU. Each worker uses one GPU. GPU_SPOT uses all types of the four families with one GPU."
  default     = "g4dn.xlarge"
  nullable    = false

  validation {
    condition     = can(regex("^g(4dn|5|6|6e)\\.[0-9]*xlarge$", var.gpu_instance_type))
    error_message = "gpu_instance_type must be an instance type of the family g4dn, g5, g6 or g6e. The image does not run on Graviton (arm64)."
  }
}

variable "worker_min_count" {
  type        = number
  description = "Minimum number of workers."
  default     = 0
  nullable    = false

  validation {
    condition     = var.worker_min_count >= 0
    error_message = "worker_min_count must be at least 0."
  }
}

variable "worker_max_count" {
  type        = number
  description = "Maximum number of workers."
  default     = 10
  nullable    = false

  validation {
    condition     = var.worker_max_count >= 1
    error_message = "worker_max_count must be at least 1."
  }
}

variable "worker_subnets" {
  type        = list(string)
  description = "IDs of subnets for the worker. They need access to S3, SQS, Step Functions, ECR, and CloudWatch Logs. Empty creates a private network."
  default     = []
  nullable    = false
}

variable "worker_security_groups" {
  type        = list(string)
  description = "IDs of security groups for the worker in WorkerSubnets. They must allow outbound HTTPS; the worker accepts no connections."
  default     = []
  nullable    = false
}

variable "segmentation_queue_name" {
  type        = string
  description = "Name of the queue that the worker polls. Must be unique in the account and Region."
  default     = "precision-bg-processing-queue"
  nullable    = false

  validation {
    condition     = length(var.segmentation_queue_name) <= 80
    error_message = "segmentation_queue_name must have at most 80 characters."
  }


  validation {
    condition     = can(regex("^[A-Za-z0-9_-]+$", var.segmentation_queue_name))
    error_message = "segmentation_queue_name must match ^[A-Za-z0-9_-]+$."
  }
}

variable "sagemaker_endpoint_name" {
  type        = string
  description = "Name of an existing endpoint that runs functions.segment.sagemaker.server. Empty means none."
  default     = ""
  nullable    = false

  validation {
    condition     = length(var.sagemaker_endpoint_name) <= 63
    error_message = "sagemaker_endpoint_name must have at most 63 characters."
  }


  validation {
    condition     = can(regex("^$|^[A-Za-z0-9](-*[A-Za-z0-9])*$", var.sagemaker_endpoint_name))
    error_message = "sagemaker_endpoint_name must match ^$|^[A-Za-z0-9](-*[A-Za-z0-9])*$."
  }
}

variable "sagemaker_image_uri" {
  type        = string
  description = "Container image of an endpoint or of transform jobs, in ECR in this Region. GPU instance types need the gpu flavor. Empty creates neither endpoint nor model."
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^[0-9]{12}\\.dkr\\.ecr\\.[a-z0-9-]+\\.amazonaws\\.com(\\.cn)?/.+$", var.sagemaker_image_uri))
    error_message = "sagemaker_image_uri must match ^$|^[0-9]{12}\\.dkr\\.ecr\\.[a-z0-9-]+\\.amazonaws\\.com(\\.cn)?/.+$."
  }
}

variable "sagemaker_instance_type" {
  type        = string
  description = "Instance type of the endpoint to create. x86 only."
  default     = "ml.c6i.2xlarge"
  nullable    = false

  validation {
    condition     = can(regex("^ml\\.[cgmrt][0-9][a-fh-z]*\\.[0-9]*x?large$", var.sagemaker_instance_type))
    error_message = "sagemaker_instance_type must be an x86 instance type such as ml.c6i.2xlarge or ml.g4dn.xlarge. The image does not run on Graviton (arm64)."
  }
}

variable "sagemaker_max_count" {
  type        = number
  description = "Maximum number of instances of the endpoint to create."
  default     = 4
  nullable    = false

  validation {
    condition     = var.sagemaker_max_count >= 1
    error_message = "sagemaker_max_count must be at least 1."
  }
}

variable "sagemaker_mode" {
  type        = string
  description = "Type of the endpoint. An asynchronous endpoint queues requests and can scale to zero. transform creates no endpoint, only the model for Batch Transform."
  default     = "realtime"
  nullable    = false

  validation {
    condition     = contains(["realtime", "async", "transform"], var.sagemaker_mode)
    error_message = "sagemaker_mode must be one of realtime, async, transform."
  }
}

variable "bulk_memory" {
  type        = number
  description = "Memory of the bulk function in MB, which runs all stages in one process. Its CPU share grows with it. 0 means the same as SegmentMemory."
  default     = 0
  nullable    = false

  validation {
    condition     = contains([0, 3008, 4096, 6144, 8192, 10240], var.bulk_memory)
    error_message = "bulk_memory must be one of 0, 3008, 4096, 6144, 8192, 10240."
  }
}

variable "bulk_concurrency" {
  type        = number
  description = "Default maximum of child executions of a bulk run at a time. An Express child takes one concurrent execution of Lambda; new accounts have 10."
  default     = 10
  nullable    = false

  validation {
    condition     = var.bulk_concurrency >= 1
    error_message = "bulk_concurrency must be at least 1."
  }


  validation {
    condition     = var.bulk_concurrency <= 10000
    error_message = "bulk_concurrency must be at most 10000."
  }
}

variable "bulk_source_buckets" {
  type        = string
  description = "Names of up to five other buckets from which bulk runs may read images, manifests and inventories, separated by commas. Empty means none."
  default     = ""
  nullable    = false

  validation {
    condition     = length(var.bulk_source_buckets) <= 319
    error_message = "bulk_source_buckets must have at most 319 characters."
  }


  validation {
    condition     = can(regex("^$|^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](,[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]){0,4}$", var.bulk_source_buckets))
    error_message = "bulk_source_buckets must match ^$|^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](,[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]){0,4}$."
  }
}

variable "bulk_transform_instance_type" {
  type        = string
  description = "Instance type of Batch Transform in bulk runs. x86 only. Empty means SageMakerInstanceType."
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^ml\\.[cgmrt][0-9][a-fh-z]*\\.[0-9]*x?large$", var.bulk_transform_instance_type))
    error_message = "bulk_transform_instance_type must be an x86 instance type such as ml.c6i.2xlarge or ml.g4dn.xlarge. The image does not run on Graviton (arm64)."
  }
}

variable "bulk_transform_instance_count" {
  type        = number
  description = "Default maximum of instances of Batch Transform in a bulk run. At most one starts for each file of requests, which has up to 500 images."
  default     = 1
  nullable    = false

  validation {
    condition     = var.bulk_transform_instance_count >= 1
    error_message = "bulk_transform_instance_count must be at least 1."
  }


  validation {
    condition     = var.bulk_transform_instance_count <= 100
    error_message = "bulk_transform_instance_count must be at most 100."
  }
}

variable "alert_email" {
  type        = string
  description = "Email address that receives alarms, budget alerts, and digests of failed images. Empty means none."
  default     = ""
  nullable    = false
}

variable "operations" {
  type        = bool
  description = "Whether to create alarms, their topic, a dashboard, saved queries, and the digest of failed images."
  default     = true
  nullable    = false
}

variable "digest_schedule" {
  type        = string
  description = "When to send a digest of failed images to AlertEmail, e.g. rate(1 day) or cron(0 6 * * ? *), in UTC."
  default     = "rate(1 day)"
  nullable    = false

  validation {
    condition     = can(regex("^(rate|cron)\\(.+\\)$", var.digest_schedule))
    error_message = "digest_schedule must match ^(rate|cron)\\(.+\\)$."
  }
}

variable "runbook_url" {
  type        = string
  description = "Base URL of the runbook; alarms link to <url>#<alarm>. The default is a path in the repository, so set the URL of the page, e.g. in your fork, for links that work in emails."
  default     = "docs/how-to/runbook.md"
  nullable    = false

  validation {
    condition     = length(var.runbook_url) <= 400
    error_message = "runbook_url must have at most 400 characters."
  }


  validation {
    condition     = can(regex("^[^#\\s]+$", var.runbook_url))
    error_message = "runbook_url must be an address without the part after \"#\"."
  }
}

variable "monthly_budget" {
  type        = number
  description = "Monthly budget in US dollars. Alerts are sent at 80 % and 100 % of it, and if the forecast exceeds it. 0 means none."
  default     = 0
  nullable    = false

  validation {
    condition     = var.monthly_budget >= 0
    error_message = "monthly_budget must be at least 0."
  }
}

variable "budget_tag" {
  type        = string
  description = "Cost allocation tag, KEY$VALUE, e.g. project$photos. MonthlyBudget counts only its cost. Tag the stack with it (make deploy TAGS=...) and activate it in Billing. Empty means the cost of the whole account."
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^[^$]+\\$[^$]+$", var.budget_tag))
    error_message = "budget_tag must be the key and the value of a tag, separated by a dollar sign, for example project$cutouts."
  }
}

variable "alarm_failure_rate" {
  type        = number
  description = "Alarm failure-rate. Share of executions that fail or time out within 15 minutes, in percent. Rejected images count, too."
  default     = 10
  nullable    = false

  validation {
    condition     = var.alarm_failure_rate >= 0
    error_message = "alarm_failure_rate must be at least 0."
  }


  validation {
    condition     = var.alarm_failure_rate <= 100
    error_message = "alarm_failure_rate must be at most 100."
  }
}

variable "alarm_failure_minimum" {
  type        = number
  description = "Minimum number of failures within 15 minutes for the alarm failure-rate."
  default     = 3
  nullable    = false

  validation {
    condition     = var.alarm_failure_minimum >= 1
    error_message = "alarm_failure_minimum must be at least 1."
  }
}

variable "alarm_slow_seconds" {
  type        = number
  description = "Alarm slow. p95 of the execution time within 15 minutes, in seconds. Hosts that scale to zero need several minutes to start."
  default     = 120
  nullable    = false

  validation {
    condition     = var.alarm_slow_seconds >= 1
    error_message = "alarm_slow_seconds must be at least 1."
  }
}

variable "alarm_slow_minimum" {
  type        = number
  description = "Minimum number of results within 15 minutes for the alarm slow."
  default     = 10
  nullable    = false

  validation {
    condition     = var.alarm_slow_minimum >= 1
    error_message = "alarm_slow_minimum must be at least 1."
  }
}

variable "alarm_aborted" {
  type        = number
  description = "Alarm timed-out-or-aborted. Number of executions that are aborted within 15 minutes. A single timeout always raises it."
  default     = 5
  nullable    = false

  validation {
    condition     = var.alarm_aborted >= 1
    error_message = "alarm_aborted must be at least 1."
  }
}

variable "alarm_dead_letters" {
  type        = number
  description = "Alarms dead-letters-... Number of messages in a dead-letter queue."
  default     = 1
  nullable    = false

  validation {
    condition     = var.alarm_dead_letters >= 1
    error_message = "alarm_dead_letters must be at least 1."
  }
}

variable "alarm_oldest_request_seconds" {
  type        = number
  description = "Alarm oldest-request. Age of the oldest request that waits for a worker, in seconds. A GPU instance needs several minutes to start."
  default     = 600
  nullable    = false

  validation {
    condition     = var.alarm_oldest_request_seconds >= 1
    error_message = "alarm_oldest_request_seconds must be at least 1."
  }
}

variable "alarm_backlog_factor" {
  type        = number
  description = "Alarm no-scale-out. Waiting requests per worker, as a multiple of the number at which scaling adds workers (10, on a GPU 100)."
  default     = 3
  nullable    = false

  validation {
    condition     = var.alarm_backlog_factor >= 1
    error_message = "alarm_backlog_factor must be at least 1."
  }
}

variable "alarm_gpu_unavailable" {
  type        = number
  description = "Alarm gpu-unavailable. Number of times within 15 minutes that a worker or an endpoint finds no usable GPU."
  default     = 1
  nullable    = false

  validation {
    condition     = var.alarm_gpu_unavailable >= 1
    error_message = "alarm_gpu_unavailable must be at least 1."
  }
}

variable "alarm_throttles" {
  type        = number
  description = "Alarms throttled and bulk-throttled. Calls that Lambda throttles per 5 minutes."
  default     = 20
  nullable    = false

  validation {
    condition     = var.alarm_throttles >= 0
    error_message = "alarm_throttles must be at least 0."
  }
}

variable "alarm_api_error_rate" {
  type        = number
  description = "Alarm api-errors. Share of API requests with a status of 500 or more within 5 minutes, in percent."
  default     = 5
  nullable    = false

  validation {
    condition     = var.alarm_api_error_rate >= 0
    error_message = "alarm_api_error_rate must be at least 0."
  }


  validation {
    condition     = var.alarm_api_error_rate <= 100
    error_message = "alarm_api_error_rate must be at most 100."
  }
}

variable "alarm_api_error_minimum" {
  type        = number
  description = "Minimum number of such requests within 5 minutes for the alarm api-errors."
  default     = 5
  nullable    = false

  validation {
    condition     = var.alarm_api_error_minimum >= 1
    error_message = "alarm_api_error_minimum must be at least 1."
  }
}

variable "alarm_bulk_failed" {
  type        = number
  description = "Alarm bulk-failed. Number of bulk runs that fail or time out within 15 minutes."
  default     = 1
  nullable    = false

  validation {
    condition     = var.alarm_bulk_failed >= 1
    error_message = "alarm_bulk_failed must be at least 1."
  }
}

variable "alarm_lost_uploads" {
  type        = number
  description = "Alarm lost-uploads. Number of uploads without an outcome that the sweep finds within an hour."
  default     = 1
  nullable    = false

  validation {
    condition     = var.alarm_lost_uploads >= 1
    error_message = "alarm_lost_uploads must be at least 1."
  }
}

variable "alarm_cost_deviations" {
  type        = number
  description = "Alarm cost-anomaly. Distance of the estimated cost per image from its expected value, in standard deviations."
  default     = 3
  nullable    = false

  validation {
    condition     = var.alarm_cost_deviations >= 1
    error_message = "alarm_cost_deviations must be at least 1."
  }
}

variable "cache_days" {
  type        = number
  description = "Days for which a result is served from the cache."
  default     = 30
  nullable    = false

  validation {
    condition     = var.cache_days >= 1
    error_message = "cache_days must be at least 1."
  }
}

variable "shared_cache" {
  type        = bool
  description = "Whether API callers and bucket uploads share cached results. Hits then reveal which images others have processed."
  default     = false
  nullable    = false
}

variable "api_job_days" {
  type        = number
  description = "Days for which a job of the HTTP API, its source image, and its result are kept."
  default     = 7
  nullable    = false

  validation {
    condition     = var.api_job_days >= 1
    error_message = "api_job_days must be at least 1."
  }


  validation {
    condition     = var.api_job_days <= 365
    error_message = "api_job_days must be at most 365."
  }
}

variable "api_rate_per_minute" {
  type        = number
  description = "Default rate limit of an API caller, in requests per minute."
  default     = 60
  nullable    = false

  validation {
    condition     = var.api_rate_per_minute >= 1
    error_message = "api_rate_per_minute must be at least 1."
  }


  validation {
    condition     = var.api_rate_per_minute <= 60000
    error_message = "api_rate_per_minute must be at most 60000."
  }
}

variable "api_monthly_quota" {
  type        = number
  description = "Default quota of an API caller, in credits per month. An image of up to 25 megapixels costs 1 credit, at ultra_high 4."
  default     = 10000
  nullable    = false

  validation {
    condition     = var.api_monthly_quota >= 0
    error_message = "api_monthly_quota must be at least 0."
  }
}

variable "api_jobs_in_flight" {
  type        = number
  description = "Maximum number of jobs in flight per API caller. Each can take one concurrent Lambda execution."
  default     = 20
  nullable    = false

  validation {
    condition     = var.api_jobs_in_flight >= 1
    error_message = "api_jobs_in_flight must be at least 1."
  }


  validation {
    condition     = var.api_jobs_in_flight <= 500
    error_message = "api_jobs_in_flight must be at most 500."
  }
}

variable "api_requests_per_second" {
  type        = number
  description = "Requests per second of all API keys together, and of all IAM callers together, see docs/how-to/choose-a-host.md."
  default     = 10
  nullable    = false

  validation {
    condition     = var.api_requests_per_second >= 1
    error_message = "api_requests_per_second must be at least 1."
  }


  validation {
    condition     = var.api_requests_per_second <= 10000
    error_message = "api_requests_per_second must be at most 10000."
  }
}

variable "api_burst" {
  type        = number
  description = "Maximum burst of the HTTP API in requests, counted like ApiRequestsPerSecond."
  default     = 40
  nullable    = false

  validation {
    condition     = var.api_burst >= 1
    error_message = "api_burst must be at least 1."
  }


  validation {
    condition     = var.api_burst <= 5000
    error_message = "api_burst must be at most 5000."
  }
}

variable "api_concurrency" {
  type        = number
  description = "Lambda concurrency to reserve for the HTTP API; also its maximum. 0 means FunctionConcurrency. New accounts cannot reserve any."
  default     = 0
  nullable    = false

  validation {
    condition     = var.api_concurrency >= 0
    error_message = "api_concurrency must be at least 0."
  }
}

variable "function_concurrency" {
  type        = number
  description = "Lambda concurrency to reserve for each function that an upload or a caller can start, 12 with the HTTP API; also its maximum. 0 reserves none. Reservations must leave 100 to the account."
  default     = 0
  nullable    = false

  validation {
    condition     = var.function_concurrency >= 0
    error_message = "function_concurrency must be at least 0."
  }
}

variable "cors_origins" {
  type        = string
  description = "Web origins that may call the HTTP API, separated by commas, for example https://app.example.com. * allows all. Empty means none."
  default     = ""
  nullable    = false

  validation {
    condition     = length(var.cors_origins) <= 400
    error_message = "cors_origins must have at most 400 characters."
  }


  validation {
    condition     = can(regex("^$|^\\*$|^https?://[^\\s,*/]+(,https?://[^\\s,*/]+)*$", var.cors_origins))
    error_message = "cors_origins must match ^$|^\\*$|^https?://[^\\s,*/]+(,https?://[^\\s,*/]+)*$."
  }
}

variable "url_schemes" {
  type        = string
  description = "URL schemes that the HTTP API accepts for image URLs and webhooks."
  default     = "https"
  nullable    = false

  validation {
    condition     = contains(["https", "http,https"], var.url_schemes)
    error_message = "url_schemes must be one of https, http,https."
  }
}

variable "url_networks" {
  type        = string
  description = "Private networks that image URLs and webhooks may reach, in CIDR notation separated by commas, for example 10.1.0.0/16. Empty means none."
  default     = ""
  nullable    = false

  validation {
    condition     = length(var.url_networks) <= 200
    error_message = "url_networks must have at most 200 characters."
  }


  validation {
    condition     = can(regex("^$|^[0-9a-f.:]+/[0-9]+(,[0-9a-f.:]+/[0-9]+)*$", var.url_networks))
    error_message = "url_networks must match ^$|^[0-9a-f.:]+/[0-9]+(,[0-9a-f.:]+/[0-9]+)*$."
  }
}

variable "api_domain" {
  type        = string
  description = "Domain name of the HTTP API, the same in all Regions, e.g. origin.example.com. Its other addresses are then disabled. Empty means that of API Gateway."
  default     = ""
  nullable    = false

  validation {
    condition     = length(var.api_domain) <= 64
    error_message = "api_domain must have at most 64 characters."
  }


  validation {
    condition     = can(regex("^$|^[a-z0-9-]+(\\.[a-z0-9-]+)+$", var.api_domain))
    error_message = "api_domain must be a domain name in lower case, such as origin.example.com."
  }
}

variable "api_hosted_zone_id" {
  type        = string
  description = "ID of the hosted zone of ApiDomain in Route 53. It gets records for ApiDomain, and one for the name of the Region. Empty creates no records and requires ApiCertificateArn."
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^Z[A-Z0-9]+$", var.api_hosted_zone_id))
    error_message = "api_hosted_zone_id must match ^$|^Z[A-Z0-9]+$."
  }
}

variable "api_certificate_arn" {
  type        = string
  description = "ARN of a certificate for ApiDomain and REGION.ApiDomain, in AWS Certificate Manager in this Region. Empty requests one."
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^arn:[a-z-]+:acm:.+$", var.api_certificate_arn))
    error_message = "api_certificate_arn must match ^$|^arn:[a-z-]+:acm:.+$."
  }
}

variable "api_routing" {
  type        = string
  description = "How Route 53 chooses among the Regions that have ApiDomain. latency chooses the nearest one; primary answers until its health check fails, then secondary; both are for two Regions. Choose before the first deployment, see docs/how-to/regions.md."
  default     = "latency"
  nullable    = false

  validation {
    condition     = contains(["latency", "primary", "secondary"], var.api_routing)
    error_message = "api_routing must be one of latency, primary, secondary."
  }
}

variable "edge_domain" {
  type        = string
  description = "Domain name of infrastructure/edge.yaml, by which clients reach the HTTP API and results, see docs/how-to/edge.md. Requires ApiDomain. Empty means no edge."
  default     = ""
  nullable    = false

  validation {
    condition     = length(var.edge_domain) <= 64
    error_message = "edge_domain must have at most 64 characters."
  }


  validation {
    condition     = can(regex("^$|^[a-z0-9-]+(\\.[a-z0-9-]+)+$", var.edge_domain))
    error_message = "edge_domain must be a domain name in lower case, such as api.example.com."
  }
}

variable "edge_secret_arn" {
  type        = string
  description = "ARN of the secret of the edge, which make deploy-edge creates, in any Region. The stack reads its replica in its own."
  default     = ""
  nullable    = false

  validation {
    condition     = length(var.edge_secret_arn) <= 110
    error_message = "edge_secret_arn must have at most 110 characters."
  }


  validation {
    condition     = can(regex("^$|^arn:[a-z-]+:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@-]+-[A-Za-z0-9]{6}$", var.edge_secret_arn))
    error_message = "edge_secret_arn must be the whole ARN of a secret, with its last six characters."
  }
}

variable "edge_distribution_id" {
  type        = string
  description = "ID of the CloudFront distribution that may read results."
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^E[A-Z0-9]+$", var.edge_distribution_id))
    error_message = "edge_distribution_id must match ^$|^E[A-Z0-9]+$."
  }
}

variable "web_image_uri" {
  type        = string
  description = "Container image of the web page (target web of the Dockerfile), in ECR in this Region. Empty means no web page."
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^[0-9]{12}\\.dkr\\.ecr\\.[a-z0-9-]+\\.amazonaws\\.com(\\.cn)?/.+$", var.web_image_uri))
    error_message = "web_image_uri must match ^$|^[0-9]{12}\\.dkr\\.ecr\\.[a-z0-9-]+\\.amazonaws\\.com(\\.cn)?/.+$."
  }
}

variable "web_domain" {
  type        = string
  description = "Domain name of the web page, e.g. cutouts.example.com. Its DNS record must be an alias of the output WebLoadBalancer."
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^[a-z0-9-]+(\\.[a-z0-9-]+)+$", var.web_domain))
    error_message = "web_domain must match ^$|^[a-z0-9-]+(\\.[a-z0-9-]+)+$."
  }
}

variable "web_certificate_arn" {
  type        = string
  description = "ARN of the certificate for WebDomain, in AWS Certificate Manager in this Region."
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^arn:[a-z-]+:(acm|iam):.+$", var.web_certificate_arn))
    error_message = "web_certificate_arn must match ^$|^arn:[a-z-]+:(acm|iam):.+$."
  }
}

variable "web_scheme" {
  type        = string
  description = "Whether the load balancer of the web page has public or private addresses. To change it, remove the page first with an empty WebImageUri."
  default     = "internet-facing"
  nullable    = false

  validation {
    condition     = contains(["internet-facing", "internal"], var.web_scheme)
    error_message = "web_scheme must be one of internet-facing, internal."
  }
}

variable "web_cidrs" {
  type        = string
  description = "Up to five IPv4 networks that may connect to the web page, in CIDR notation separated by commas."
  default     = "0.0.0.0/0"
  nullable    = false

  validation {
    condition     = can(regex("^[0-9.]+/[0-9]{1,2}(,[0-9.]+/[0-9]{1,2}){0,4}$", var.web_cidrs))
    error_message = "web_cidrs must be one to five IPv4 networks in CIDR notation, separated by commas."
  }
}

variable "web_vpc" {
  type        = string
  description = "ID of the VPC of the web page. To change it, remove the page first with an empty WebImageUri."
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^vpc-[a-z0-9-]+$", var.web_vpc))
    error_message = "web_vpc must match ^$|^vpc-[a-z0-9-]+$."
  }
}

variable "web_subnets" {
  type        = list(string)
  description = "IDs of subnets in two zones or more for the load balancer of the web page. They must be public if WebScheme is internet-facing."
  default     = []
  nullable    = false
}

variable "web_task_subnets" {
  type        = list(string)
  description = "IDs of private subnets with a NAT gateway for the tasks of the web page. Empty means WebSubnets; in public ones, tasks get public addresses."
  default     = []
  nullable    = false
}

variable "web_desired_count" {
  type        = number
  description = "Number of tasks of the web page. A session stays at one task."
  default     = 1
  nullable    = false

  validation {
    condition     = var.web_desired_count >= 0
    error_message = "web_desired_count must be at least 0."
  }


  validation {
    condition     = var.web_desired_count <= 20
    error_message = "web_desired_count must be at most 20."
  }
}

variable "web_oidc_issuer" {
  type        = string
  description = "Issuer of the OpenID Connect provider that signs in users of the web page. Empty closes the page."
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^https://\\S+$", var.web_oidc_issuer))
    error_message = "web_oidc_issuer must match ^$|^https://\\S+$."
  }
}

variable "web_oidc_authorization_endpoint" {
  type        = string
  description = "Authorization endpoint of the OpenID Connect provider."
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^https://\\S+$", var.web_oidc_authorization_endpoint))
    error_message = "web_oidc_authorization_endpoint must match ^$|^https://\\S+$."
  }
}

variable "web_oidc_token_endpoint" {
  type        = string
  description = "Token endpoint of the OpenID Connect provider."
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^https://\\S+$", var.web_oidc_token_endpoint))
    error_message = "web_oidc_token_endpoint must match ^$|^https://\\S+$."
  }
}

variable "web_oidc_user_info_endpoint" {
  type        = string
  description = "User info endpoint of the OpenID Connect provider."
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^https://\\S+$", var.web_oidc_user_info_endpoint))
    error_message = "web_oidc_user_info_endpoint must match ^$|^https://\\S+$."
  }
}

variable "web_oidc_client_id" {
  type        = string
  description = "Client ID of the web page at the OpenID Connect provider."
  default     = ""
  nullable    = false
}

variable "web_oidc_client_secret_arn" {
  type        = string
  description = "ARN of the secret in Secrets Manager whose text is the client secret. It is read when the stack is deployed."
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^arn:[a-z-]+:secretsmanager:.+$", var.web_oidc_client_secret_arn))
    error_message = "web_oidc_client_secret_arn must match ^$|^arn:[a-z-]+:secretsmanager:.+$."
  }
}

variable "build" {
  type        = string
  description = "Version and commit of the code, which every log line names. make deploy sets it."
  default     = ""
  nullable    = false

  validation {
    condition     = length(var.build) <= 80
    error_message = "build must have at most 80 characters."
  }


  validation {
    condition     = can(regex("^[A-Za-z0-9_.-]*$", var.build))
    error_message = "build must match ^[A-Za-z0-9_.-]*$."
  }
}

variable "log_retention_days" {
  type        = number
  description = "Days for which logs are kept, also access logs."
  default     = 30
  nullable    = false

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 180, 365], var.log_retention_days)
    error_message = "log_retention_days must be one of 1, 3, 5, 7, 14, 30, 60, 90, 180, 365."
  }
}

variable "kms_key_arn" {
  type        = string
  description = "ARN of a KMS key that encrypts the data of the stack, see docs/how-to/encrypt-with-your-key.md. Empty means keys of AWS."
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$", var.kms_key_arn))
    error_message = "kms_key_arn must be the ARN of a key, not of an alias."
  }
}

variable "source_days" {
  type        = number
  description = "Days after which uploads are deleted, also those under backgrounds/. 0 means never. Those of the API are deleted after ApiJobDays."
  default     = 0
  nullable    = false

  validation {
    condition     = contains([0, 1, 7, 30, 90, 180, 365, 730, 1825, 3650], var.source_days)
    error_message = "source_days must be one of 0, 1, 7, 30, 90, 180, 365, 730, 1825, 3650."
  }
}

variable "result_days" {
  type        = number
  description = "Days after which results, failure reports and summaries are deleted. 0 means never. Those of the API are deleted after ApiJobDays."
  default     = 0
  nullable    = false

  validation {
    condition     = contains([0, 1, 7, 30, 90, 180, 365, 730, 1825, 3650], var.result_days)
    error_message = "result_days must be one of 0, 1, 7, 30, 90, 180, 365, 730, 1825, 3650."
  }
}

variable "archive_days" {
  type        = number
  description = "Days after which uploads and results move to ArchiveStorageClass. 0 means never. S3 does not move objects smaller than 128 KB."
  default     = 0
  nullable    = false

  validation {
    condition     = contains([0, 30, 90, 180], var.archive_days)
    error_message = "archive_days must be one of 0, 30, 90, 180."
  }
}

variable "archive_storage_class" {
  type        = string
  description = "Storage class for ArchiveDays. All can be read at once, but the first and the last charge for it."
  default     = "STANDARD_IA"
  nullable    = false

  validation {
    condition     = contains(["STANDARD_IA", "INTELLIGENT_TIERING", "GLACIER_IR"], var.archive_storage_class)
    error_message = "archive_storage_class must be one of STANDARD_IA, INTELLIGENT_TIERING, GLACIER_IR."
  }
}

variable "api_keys_table_name" {
  type        = string
  description = "Name of a DynamoDB table with the API keys, e.g. of infrastructure/global-keys.yaml, which all Regions share. It must be in this Region. Empty means a table of the stack."
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^[A-Za-z0-9_.-]{3,255}$", var.api_keys_table_name))
    error_message = "api_keys_table_name must match ^$|^[A-Za-z0-9_.-]{3,255}$."
  }
}

variable "results_replica_bucket_arn" {
  type        = string
  description = "ARN of a bucket in another Region to which S3 replicates results, made by infrastructure/replica.yaml, see docs/how-to/regions.md. Empty means none."
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^arn:[a-z-]+:s3:::[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", var.results_replica_bucket_arn))
    error_message = "results_replica_bucket_arn must be the ARN of a bucket."
  }
}

variable "results_replica_kms_key_arn" {
  type        = string
  description = "ARN of the KMS key of ResultsReplicaBucketArn, in the Region of that bucket. Required with KmsKeyArn, and only then."
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$", var.results_replica_kms_key_arn))
    error_message = "results_replica_kms_key_arn must be the ARN of a key, not of an alias."
  }
}

variable "permissions_boundary_arn" {
  type        = string
  description = "ARN of the IAM policy that is the permissions boundary of every role of the stack. Empty means none."
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^$|^arn:[a-z-]+:iam::([0-9]{12}|aws):policy/.+$", var.permissions_boundary_arn))
    error_message = "permissions_boundary_arn must be the ARN of an IAM policy."
  }
}

variable "deployment_type" {
  type        = string
  description = "How an update moves new executions to the new version of the state machine. CANARY moves DeploymentPercentage first and the rest after DeploymentInterval, LINEAR repeats the step."
  default     = "ALL_AT_ONCE"
  nullable    = false

  validation {
    condition     = contains(["ALL_AT_ONCE", "CANARY", "LINEAR"], var.deployment_type)
    error_message = "deployment_type must be one of ALL_AT_ONCE, CANARY, LINEAR."
  }
}

variable "deployment_percentage" {
  type        = number
  description = "Percentage of new executions that a step of CANARY or LINEAR moves to the new version."
  default     = 10
  nullable    = false

  validation {
    condition     = var.deployment_percentage >= 1
    error_message = "deployment_percentage must be at least 1."
  }


  validation {
    condition     = var.deployment_percentage <= 99
    error_message = "deployment_percentage must be at most 99."
  }
}

variable "deployment_interval" {
  type        = number
  description = "Minutes between two steps of CANARY or LINEAR. An alarm in this time rolls the update back."
  default     = 10
  nullable    = false

  validation {
    condition     = var.deployment_interval >= 1
    error_message = "deployment_interval must be at least 1."
  }


  validation {
    condition     = var.deployment_interval <= 2100
    error_message = "deployment_interval must be at most 2100."
  }
}

variable "republish" {
  type        = string
  description = "Any text. A new one publishes new versions of all functions, also of unchanged ones. Needed to repeat an update that was rolled back."
  default     = ""
  nullable    = false

  validation {
    condition     = length(var.republish) <= 12
    error_message = "republish must have at most 12 characters."
  }


  validation {
    condition     = can(regex("^[A-Za-z0-9._:+-]*$", var.republish))
    error_message = "republish must match ^[A-Za-z0-9._:+-]*$."
  }
}

locals {
  parameters = {
    SegmentationHost             = var.segmentation_host,
    DefaultModel                 = var.default_model,
    SegmentMemory                = var.segment_memory,
    RefineMemory                 = var.refine_memory,
    EncodeMemory                 = var.encode_memory,
    EscalateOnReview             = var.escalate_on_review,
    EscalationModel              = var.escalation_model,
    ModelDirectory               = var.model_directory,
    ModelMirror                  = var.model_mirror,
    ModelBucket                  = var.model_bucket,
    CustomModels                 = var.custom_models,
    Presets                      = var.presets,
    WorkerImageUri               = var.worker_image_uri,
    SegmentationCapacity         = var.segmentation_capacity,
    GpuInstanceType              = var.gpu_instance_type,
    WorkerMinCount               = var.worker_min_count,
    WorkerMaxCount               = var.worker_max_count,
    WorkerSubnets                = join(",", var.worker_subnets),
    WorkerSecurityGroups         = join(",", var.worker_security_groups),
    SegmentationQueueName        = var.segmentation_queue_name,
    SageMakerEndpointName        = var.sagemaker_endpoint_name,
    SageMakerImageUri            = var.sagemaker_image_uri,
    SageMakerInstanceType        = var.sagemaker_instance_type,
    SageMakerMaxCount            = var.sagemaker_max_count,
    SageMakerMode                = var.sagemaker_mode,
    BulkMemory                   = var.bulk_memory,
    BulkConcurrency              = var.bulk_concurrency,
    BulkSourceBuckets            = var.bulk_source_buckets,
    BulkTransformInstanceType    = var.bulk_transform_instance_type,
    BulkTransformInstanceCount   = var.bulk_transform_instance_count,
    AlertEmail                   = var.alert_email,
    Operations                   = var.operations,
    DigestSchedule               = var.digest_schedule,
    RunbookUrl                   = var.runbook_url,
    MonthlyBudget                = var.monthly_budget,
    BudgetTag                    = var.budget_tag,
    AlarmFailureRate             = var.alarm_failure_rate,
    AlarmFailureMinimum          = var.alarm_failure_minimum,
    AlarmSlowSeconds             = var.alarm_slow_seconds,
    AlarmSlowMinimum             = var.alarm_slow_minimum,
    AlarmAborted                 = var.alarm_aborted,
    AlarmDeadLetters             = var.alarm_dead_letters,
    AlarmOldestRequestSeconds    = var.alarm_oldest_request_seconds,
    AlarmBacklogFactor           = var.alarm_backlog_factor,
    AlarmGpuUnavailable          = var.alarm_gpu_unavailable,
    AlarmThrottles               = var.alarm_throttles,
    AlarmApiErrorRate            = var.alarm_api_error_rate,
    AlarmApiErrorMinimum         = var.alarm_api_error_minimum,
    AlarmBulkFailed              = var.alarm_bulk_failed,
    AlarmLostUploads             = var.alarm_lost_uploads,
    AlarmCostDeviations          = var.alarm_cost_deviations,
    CacheDays                    = var.cache_days,
    SharedCache                  = var.shared_cache,
    ApiJobDays                   = var.api_job_days,
    ApiRatePerMinute             = var.api_rate_per_minute,
    ApiMonthlyQuota              = var.api_monthly_quota,
    ApiJobsInFlight              = var.api_jobs_in_flight,
    ApiRequestsPerSecond         = var.api_requests_per_second,
    ApiBurst                     = var.api_burst,
    ApiConcurrency               = var.api_concurrency,
    FunctionConcurrency          = var.function_concurrency,
    CorsOrigins                  = var.cors_origins,
    UrlSchemes                   = var.url_schemes,
    UrlNetworks                  = var.url_networks,
    ApiDomain                    = var.api_domain,
    ApiHostedZoneId              = var.api_hosted_zone_id,
    ApiCertificateArn            = var.api_certificate_arn,
    ApiRouting                   = var.api_routing,
    EdgeDomain                   = var.edge_domain,
    EdgeSecretArn                = var.edge_secret_arn,
    EdgeDistributionId           = var.edge_distribution_id,
    WebImageUri                  = var.web_image_uri,
    WebDomain                    = var.web_domain,
    WebCertificateArn            = var.web_certificate_arn,
    WebScheme                    = var.web_scheme,
    WebCidrs                     = var.web_cidrs,
    WebVpc                       = var.web_vpc,
    WebSubnets                   = join(",", var.web_subnets),
    WebTaskSubnets               = join(",", var.web_task_subnets),
    WebDesiredCount              = var.web_desired_count,
    WebOidcIssuer                = var.web_oidc_issuer,
    WebOidcAuthorizationEndpoint = var.web_oidc_authorization_endpoint,
    WebOidcTokenEndpoint         = var.web_oidc_token_endpoint,
    WebOidcUserInfoEndpoint      = var.web_oidc_user_info_endpoint,
    WebOidcClientId              = var.web_oidc_client_id,
    WebOidcClientSecretArn       = var.web_oidc_client_secret_arn,
    Build                        = var.build,
    LogRetentionDays             = var.log_retention_days,
    KmsKeyArn                    = var.kms_key_arn,
    SourceDays                   = var.source_days,
    ResultDays                   = var.result_days,
    ArchiveDays                  = var.archive_days,
    ArchiveStorageClass          = var.archive_storage_class,
    ApiKeysTableName             = var.api_keys_table_name,
    ResultsReplicaBucketArn      = var.results_replica_bucket_arn,
    ResultsReplicaKmsKeyArn      = var.results_replica_kms_key_arn,
    PermissionsBoundaryArn       = var.permissions_boundary_arn,
    DeploymentType               = var.deployment_type,
    DeploymentPercentage         = var.deployment_percentage,
    DeploymentInterval           = var.deployment_interval,
    Republish                    = var.republish,
  }
}
