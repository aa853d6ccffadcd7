"""An operation can go on where another stopped, and reuse the steps that were done there."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("operations", "0002_log_and_request_id")]

    operations = [
        migrations.AddField("operation", "resumes", models.CharField(blank=True, default="", max_length=255), False),
        migrations.AddField("step", "done_in", models.CharField(blank=True, default="", max_length=255), False),
    ]
