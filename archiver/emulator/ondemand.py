"""The actions that make backups and watch them: CreateBackup and DescribeBackupTasks."""

from typing import Any

from archiver.emulator.call import Call, malformed
from archiver.emulator.gateway import ApiError

_FOREVER = "-1"


def create_backup(call: Call) -> dict[str, Any]:
    days, instance = _days(call), call.instance
    if instance.fields()["InstanceStatus"] != "Normal":
        raise ApiError(
            403, "IncorrectDBInstanceState", "The instance's status does not allow this."
        )
    if not instance.has_backups:  # which code the vendor has for this is not documented
        raise ApiError(
            400, "InvalidInstanceType.NotSupported", "An instance without replica has no backups."
        )
    job = call.jobs.create(instance, days)
    call.jobs.finish_due()  # a job may take no time
    return {"BackupJobID": ",".join(map(str, job.ids))}


def _days(call: Call) -> int | None:
    if call.params.get("BackupRetentionPeriod") == _FOREVER:
        return int(_FOREVER)
    days = call.number("BackupRetentionPeriod")
    if days is not None and not 7 <= days <= 730:
        raise malformed("BackupRetentionPeriod")
    return days


def describe_backup_tasks(call: Call) -> dict[str, Any]:
    """The jobs of CreateBackup since the start, one entry for each node."""
    job_id = call.number("BackupJobId")
    wants_automated = call.one_of("JobMode", ("Automated", "Manual")) == "Automated"
    jobs = [] if wants_automated else call.jobs.of(call.instance)
    return {
        "InstanceId": call.instance.id,
        "BackupJobs": [
            {
                "BackupJobID": job.id_of(node),
                "NodeId": node,
                "JobMode": "Manual",
                "TaskAction": "TempBackupTask",
                "StartTime": job.start_time,
                "BackupProgressStatus": job.status(call.now),
                "Process": str(job.progress(call.now)),
                "Progress": str(job.progress(call.now)),
            }
            for job in jobs
            for node in job.sources
            if job_id is None or job_id == job.id_of(node)
        ],
    }
