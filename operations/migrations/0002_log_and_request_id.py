from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("operations", "0001_operations")]

    operations = [
        migrations.AddField("operation", "request_id", models.CharField(blank=True, default="", max_length=64), False),
        migrations.AddField("step", "log", models.TextField(blank=True, default=""), False),
    ]
