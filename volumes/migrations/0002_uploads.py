"""Name the upload that fills a backup object, and keep when it last was heard of."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("volumes", "0001_volumes"),
    ]

    operations = [
        migrations.AddField(
            model_name="backupobject",
            name="upload",
            field=models.CharField(blank=True, max_length=16),
        ),
        migrations.AddField(
            model_name="backupobject",
            name="upload_seen_at",
            field=models.DateTimeField(null=True),
        ),
    ]
