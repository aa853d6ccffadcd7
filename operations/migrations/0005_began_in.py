"""An operation that is cancelled before it begins leaves its subject as it was."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("operations", "0004_tallies_and_canaries")]

    operations = [
        migrations.AddField("operation", "began_in", models.CharField(blank=True, default="", max_length=16), False),
    ]
